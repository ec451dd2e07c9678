// SPDX-License-Identifier: Apache-2.0

import Supervision
import Testing

@Suite("How a worker's memory allocator is to be")
struct AllocatorTests {
    private static let blocksAtHand = "glibc.malloc.tcache_count=127"
    private static let keptHeap =
        "glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=67108864:glibc.malloc.mmap_threshold=4194304"

    @Test("it keeps more at hand, unless whoever starts the daemon says how much", arguments: [nil, ""])
    func tunables(given: String?) {
        #expect(Allocator.tunables(given) == "\(Self.blocksAtHand):\(Self.keptHeap)")
    }

    @Test("what whoever starts the daemon has said counts, each setting by itself")
    func givenTunables() {
        #expect(
            Allocator.tunables("glibc.malloc.perturb=85")
                == "glibc.malloc.perturb=85:\(Self.blocksAtHand):\(Self.keptHeap)")
        #expect(
            Allocator.tunables("glibc.malloc.tcache_count=7") == "glibc.malloc.tcache_count=7:\(Self.keptHeap)")
        #expect(Allocator.tunables("\(Self.keptHeap)") == "\(Self.keptHeap):\(Self.blocksAtHand)")
    }
}
