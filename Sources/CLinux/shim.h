// SPDX-License-Identifier: Apache-2.0
// What glibc has and Swift's Glibc module leaves out, for it stands behind _GNU_SOURCE there: memfd_create(2).
#pragma once

enum {
    KV_MFD_CLOEXEC = 1,
    KV_MFD_ALLOW_SEALING = 2,
    KV_F_ADD_SEALS = 1033,
    KV_F_GET_SEALS = 1034,
    KV_F_SEAL_SEAL = 1,
    KV_F_SEAL_SHRINK = 2,
    KV_F_SEAL_GROW = 4,
};

extern int memfd_create(const char *name, unsigned int flags);
