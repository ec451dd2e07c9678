// SPDX-License-Identifier: Apache-2.0

/// Lines that end in CR LF, out of whatever pieces they come in.
struct LineReader {
    private(set) var all: [String] = []
    private let longest: Int
    private var rest: [UInt8] = []
    private(set) var isOverlong = false

    init(longest: Int) { self.longest = longest }

    var count: Int { all.count }
    var last: String? { all.last }
    /// Whether nothing has come behind the last whole line.
    var isAtLineEnd: Bool { rest.isEmpty }

    mutating func take(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes {
            guard byte == UInt8(ascii: "\n") else {
                rest.append(byte)
                isOverlong = isOverlong || rest.count > longest
                continue
            }
            if rest.last == UInt8(ascii: "\r") { rest.removeLast() }
            all.append(String(decoding: rest, as: UTF8.self))
            rest.removeAll(keepingCapacity: true)
        }
    }
}
