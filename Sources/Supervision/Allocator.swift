// SPDX-License-Identifier: Apache-2.0

/// How a worker's memory allocator is to be: glibc's, which takes this from the environment alone, before `main`.
/// (Others, a sanitizer's for one, pass it over.) Why: docs/decisions/010; what it gains: docs/performance.md.
package enum Allocator {
    /// `name=value`, with colons between them ("Memory Allocation Tunables" in glibc's manual).
    package static let variable = "GLIBC_TUNABLES"

    private struct Setting {
        let name: String
        let value: Int
        /// The older variable of the same meaning, which a tunable would overrule.
        let alias: String?
    }

    private static let settings = [
        // A turn of the event loop takes memory for each of the requests that have come, and gives all of it back in a
        // later one. Of each size glibc 2.36 keeps seven blocks at hand for a thread, and has to look for any other.
        // Those at hand do not go back to the system: up to 4.2 MiB for a thread that has used all sizes.
        Setting(name: "glibc.malloc.tcache_count", value: 127, alias: nil),
        // The values of 256 KiB that a worker has under way come from memory that it keeps, and not from the system
        // each time, page by page: of what is free at the heap's end 64 MiB stay, and only what is larger than any
        // chunk of a value is mapped by itself. One heap for all threads, since of others each piece of 64 MiB goes
        // back as soon as it is empty.
        Setting(name: "glibc.malloc.arena_max", value: 1, alias: "MALLOC_ARENA_MAX"),
        Setting(name: "glibc.malloc.mmap_threshold", value: 4 << 20, alias: "MALLOC_MMAP_THRESHOLD_"),
        // (From when on the end goes back, and what stays of it.)
        Setting(name: "glibc.malloc.trim_threshold", value: 64 << 20, alias: "MALLOC_TRIM_THRESHOLD_"),
        Setting(name: "glibc.malloc.top_pad", value: 64 << 20, alias: "MALLOC_TOP_PAD_"),
    ]

    /// The value of `variable` for a worker.
    /// - Parameter environment: the daemon's own. What its operator says there goes first, and counts.
    package static func tunables(_ environment: [String: String]) -> String {
        let given = environment[variable] ?? ""
        let added = settings.filter { setting in
            !given.contains(setting.name + "=") && setting.alias.flatMap { environment[$0] } == nil
        }
        return ((given.isEmpty ? [] : [given]) + added.map { "\($0.name)=\($0.value)" }).joined(separator: ":")
    }
}
