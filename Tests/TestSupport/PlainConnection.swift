// SPDX-License-Identifier: Apache-2.0

/// A connection that speaks memcached's text protocol as it is typed: for setting a scene and for looking behind it.
package final class PlainConnection: Sendable {
    package struct NoAnswer: Error {
        package let soFar: String
    }

    private let descriptor: Descriptor

    package init(path: String, timeoutMilliseconds: Int = 5000) throws {
        descriptor = try Descriptor.unixSocket()
        try descriptor.connect(to: path)
        descriptor.setReadTimeout(milliseconds: timeoutMilliseconds)
    }

    /// Sends a line (or several) and reads up to and with `ending`.
    @discardableResult
    package func ask(_ text: String, until ending: String = "\r\n") throws -> String {
        descriptor.write(Array((text + "\r\n").utf8))
        let ending = Array(ending.utf8)
        var answer: [UInt8] = []
        while !answer.suffix(ending.count).elementsEqual(ending) {
            guard let bytes = descriptor.read(), !bytes.isEmpty else {
                throw NoAnswer(soFar: String(decoding: answer, as: UTF8.self))
            }
            answer += bytes
        }
        return String(decoding: answer, as: UTF8.self)
    }
}
