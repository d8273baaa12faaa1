# SPDX-License-Identifier: MIT
"""Scripted guests inside KVM_RUN, on top of the model and the FP-ownership protocol."""
