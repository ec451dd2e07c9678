// SPDX-License-Identifier: Apache-2.0

import Supervision
import Testing

@Suite("How a worker's memory allocator is to be")
struct AllocatorTests {
    private static let blocksAtHand = "glibc.malloc.tcache_count=127"
    private static let oneHeap = "glibc.malloc.arena_max=1"
    private static let keptHeap =
        "glibc.malloc.mmap_threshold=4194304:glibc.malloc.trim_threshold=67108864:glibc.malloc.top_pad=67108864"

    @Test("it keeps more at hand", arguments: [[:], ["GLIBC_TUNABLES": "", "HOME": "/"]])
    func tunables(of environment: [String: String]) {
        #expect(Allocator.tunables(environment) == "\(Self.blocksAtHand):\(Self.oneHeap):\(Self.keptHeap)")
    }

    @Test("what the operator has said counts, each setting by itself, in whichever way it was said")
    func settingsOfAnOperator() {
        #expect(
            Allocator.tunables(["GLIBC_TUNABLES": "glibc.malloc.perturb=85"])
                == "glibc.malloc.perturb=85:\(Self.blocksAtHand):\(Self.oneHeap):\(Self.keptHeap)")
        #expect(
            Allocator.tunables(["GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"])
                == "glibc.malloc.tcache_count=7:\(Self.oneHeap):\(Self.keptHeap)")
        #expect(
            Allocator.tunables(["GLIBC_TUNABLES": Self.keptHeap])
                == "\(Self.keptHeap):\(Self.blocksAtHand):\(Self.oneHeap)")
        #expect(Allocator.tunables(["MALLOC_ARENA_MAX": "4"]) == "\(Self.blocksAtHand):\(Self.keptHeap)")
    }
}
