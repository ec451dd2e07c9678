// SPDX-License-Identifier: Apache-2.0

private import Foundation
private import Glibc

/// A directory of a test's own, in `TMPDIR` where that is set, with a short name (a unix socket's path is at most 107
/// bytes). Gone when it is let go.
package final class TemporaryDirectory: Sendable {
    package let path: String

    package init() throws {
        let parent = ProcessInfo.processInfo.environment["TMPDIR"].flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp"
        var template = Array("\(parent)/kvserver-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Descriptor.Failure(call: "mkdtemp", number: errno) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}
