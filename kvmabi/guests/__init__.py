# SPDX-License-Identifier: MIT
"""What runs inside KVM_RUN where it is more than an idle guest: above the model and the FP-ownership protocol."""
