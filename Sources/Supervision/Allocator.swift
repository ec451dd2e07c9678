// SPDX-License-Identifier: Apache-2.0

/// How a worker's memory allocator is to be: glibc's, which takes this from the environment alone, before `main`.
///
/// What these settings gain, measured: docs/performance.md.
package enum Allocator {
    /// `name=value`, with colons between them ("Tunables" in glibc's manual).
    package static let variable = "GLIBC_TUNABLES"

    private static let settings: [(name: String, value: Int)] = [
        // A turn of the event loop takes memory for each of the requests that have come, and gives all of it back in a
        // later one. Of each size glibc 2.36 keeps seven blocks at hand for a thread, and has to look for any other.
        // Those at hand do not go back to the system: up to 4.2 MiB for a thread that has used all sizes.
        ("glibc.malloc.tcache_count", 127),
        // As many values of 256 KiB as a worker has under way come from memory that it keeps, and not from the system
        // each time, page by page: up to 64 MiB of what is free at the heap's end stays, and only what is larger than
        // any chunk of a value is mapped by itself. One heap for all threads, since of the others' heaps each piece of
        // 64 MiB goes back as soon as it is empty, whatever this says.
        ("glibc.malloc.arena_max", 1),
        ("glibc.malloc.trim_threshold", 64 << 20),
        ("glibc.malloc.mmap_threshold", 4 << 20),
    ]

    /// - Parameter given: what whoever started the daemon wants; it goes first, and counts.
    package static func tunables(_ given: String?) -> String {
        let given = given ?? ""
        let added = settings.filter { !given.contains($0.name + "=") }.map { "\($0.name)=\($0.value)" }
        return ((given.isEmpty ? [] : [given]) + added).joined(separator: ":")
    }
}
