// SPDX-License-Identifier: Apache-2.0

import Supervision
import Testing

@Suite("How a worker's memory allocator is to be")
struct AllocatorTests {
    @Test("it keeps more blocks at hand, unless whoever starts the daemon says how many")
    func tunables() {
        #expect(Allocator.tunables(nil) == "glibc.malloc.tcache_count=127")
        #expect(Allocator.tunables("") == "glibc.malloc.tcache_count=127")
        #expect(
            Allocator.tunables("glibc.malloc.perturb=85")
                == "glibc.malloc.perturb=85:glibc.malloc.tcache_count=127")
        #expect(Allocator.tunables("glibc.malloc.tcache_count=7") == "glibc.malloc.tcache_count=7")
    }
}
