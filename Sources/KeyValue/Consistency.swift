// SPDX-License-Identifier: Apache-2.0

/// How much a read or a write is to rely on: which replicas count, and how many of them must answer.
package struct Consistency: Hashable, Sendable {
    package enum Level: String, Hashable, Sendable, Codable, CaseIterable {
        /// One phase: a write takes its version from the clock, a read repairs in the background what it found to be
        /// old. Nothing acknowledged is lost, but a reader may see a newer value and then an older one while a write is
        /// under way.
        case sloppy
        /// Linearizable: writes ask for versions first, a read answers only what a majority holds.
        case strict
    }

    package var level: Level
    /// How many replicas must answer; nil: a majority, which is also the least under `strict`.
    package var quorum: Int?

    package init(_ level: Level, quorum: Int? = nil) {
        self.level = level
        self.quorum = quorum
    }

    package static let strict = Consistency(.strict)
    package static let sloppy = Consistency(.sloppy)
}
