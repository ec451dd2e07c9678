// SPDX-License-Identifier: Apache-2.0

/// How a worker's memory allocator is to be: glibc's, which is told by a variable of the environment.
///
/// A turn of the event loop takes memory for each of the requests that have come, and gives all of it back in a later
/// one. glibc keeps seven blocks of a size at hand for each thread; what is beyond that it has to look for
/// (docs/performance.md).
package enum Allocator {
    /// glibc(7): `name=value`, with colons between them.
    package static let variable = "GLIBC_TUNABLES"
    private static let keptBlocks = "glibc.malloc.tcache_count"
    /// Of a size; all sizes together are 4 MiB of a thread's at most.
    private static let keptCount = 127

    /// - Parameter given: what whoever started the daemon wants; it goes first.
    package static func tunables(_ given: String?) -> String {
        guard let given, !given.isEmpty else { return "\(keptBlocks)=\(keptCount)" }
        return given.contains("\(keptBlocks)=") ? given : "\(given):\(keptBlocks)=\(keptCount)"
    }
}
