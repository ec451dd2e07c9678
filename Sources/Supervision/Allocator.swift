// SPDX-License-Identifier: Apache-2.0

/// How a worker's memory allocator is to be: glibc's, which takes this from the environment alone, before `main`.
///
/// A turn of the event loop takes memory for each of the requests that have come, and gives all of it back in a later
/// one. Of each size glibc 2.36 keeps seven blocks at hand for a thread, and has to look for any other
/// (docs/performance.md). Those at hand do not go back to the system: up to 4.2 MiB for a thread that has used all
/// sizes.
package enum Allocator {
    /// `name=value`, with colons between them ("Tunables" in glibc's manual).
    package static let variable = "GLIBC_TUNABLES"
    private static let keptBlocks = "glibc.malloc.tcache_count"
    private static let keptCount = 127

    /// - Parameter given: what whoever started the daemon wants; it goes first.
    package static func tunables(_ given: String?) -> String {
        guard let given, !given.isEmpty else { return "\(keptBlocks)=\(keptCount)" }
        return given.contains("\(keptBlocks)=") ? given : "\(given):\(keptBlocks)=\(keptCount)"
    }
}
