/* SPDX-License-Identifier: MIT */
/*
 * FORECAST: numbers that SME may have once it is merged, the next ones that are free in Linux 7.3. No kernel has them.
 *
 * For a VMM that prepares for SME: include this before <linux/kvm.h>, or compile with -include kvmabi/sme_forecast.h,
 * and run it with kvmabi run --kernel sme-forecast. Never ship it: take the numbers from the kernel that has SME.
 */
#ifndef KVMABI_SME_FORECAST_H
#define KVMABI_SME_FORECAST_H

#if defined(KVM_ARM_VCPU_SME) || defined(KVM_CAP_ARM_SME)
#error "include kvmabi/sme_forecast.h before linux/kvm.h: SME has other numbers already"
#endif

#define KVM_ARM_VCPU_SME	10
#define KVM_CAP_ARM_SME		252

#endif
