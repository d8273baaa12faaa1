# SPDX-License-Identifier: MIT
"""The checks of validate, a file for each subject: small generators of what is seen of one vCPU."""
