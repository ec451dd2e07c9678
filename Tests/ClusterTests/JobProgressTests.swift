// SPDX-License-Identifier: Apache-2.0

import Cluster
import Foundation
import Testing

/// What a node says of its part in a ring change, or in a refill, is added up by whoever asked.
struct JobProgressTests {
    private static func progress(found: String) throws -> JobProgress {
        let text = #"{"pairsFound":\#(found),"pairsDone":1,"pairsMoved":1,"bytesMoved":7,"seconds":0.5}"#
        return try JSONDecoder().decode(JobProgress.self, from: Data(text.utf8))
    }

    @Test("what is said comes back")
    func comesBack() throws {
        let progress = try Self.progress(found: "3")
        #expect((progress.pairsFound, progress.bytesMoved, progress.seconds) == (3, 7, 0.5))
        #expect(try JSONDecoder().decode(JobProgress.self, from: JSONEncoder().encode(progress)) == progress)
        _ = try Self.progress(found: "1125899906842624")
    }

    @Test(
        "a number of pairs that would not add up with others' is refused",
        arguments: ["-1", "1125899906842625", "9223372036854775807", "-9223372036854775808"])
    func wouldOverflow(_ found: String) {
        #expect(throws: DecodingError.self) { try Self.progress(found: found) }
    }
}
