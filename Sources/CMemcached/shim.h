// SPDX-License-Identifier: Apache-2.0
// libmemcached as a module. `link "memcached"` alone: libmemcached.pc also names memcachedutil and sasl2,
// which nothing here uses.
#pragma once
#include <libmemcached/memcached.h>
