// SPDX-License-Identifier: Apache-2.0

import HTTPFront
import NIOCore
import TestSupport
import Testing

@Suite("A form's or query's fields")
struct FormDecoderTests {
    private func bytes(_ name: StaticString, _ form: String, limit: Int = 4096) -> FormDecoder.Field<[UInt8]> {
        Array(form.utf8).withUnsafeBytes { FormDecoder.bytes(name, in: $0, limit: limit) }
    }

    private func text(_ field: FormDecoder.Field<[UInt8]>) -> String {
        switch field {
        case .absent: "absent"
        case .malformed: "malformed"
        case .tooLong: "too long"
        case .value(let bytes): "=" + String(decoding: bytes, as: UTF8.self)
        }
    }

    @Test(
        "equations",
        arguments: [
            ("key=a", "=a"), ("key=a&val=b", "=a"), ("val=b&key=a", "=a"), ("&&key=a&&", "=a"), ("key=", "="),
            ("key", "="),
            ("", "absent"), ("keys=a", "absent"), ("ke=a", "absent"), ("akey=a", "absent"), ("KEY=a", "absent"),
            ("k%65y=a", "absent"), ("key=a=b", "=a=b"), ("key=a+b%20c%2B", "=a b c+"), ("key=1&key=2", "=1"),
            ("key=%", "malformed"), ("key=%4", "malformed"), ("key=%zz", "malformed"), ("key=a%2&val=1", "malformed"),
            ("key=%41%4a%4A", "=AJJ"), ("val=%zz&key=a", "=a"),
        ])
    func equations(_ form: String, _ wanted: String) { #expect(text(bytes("key", form)) == wanted, "\(form)") }

    @Test("the limit counts decoded bytes")
    func limit() {
        #expect(text(bytes("key", "key=" + String(repeating: "%41", count: 4), limit: 4)) == "=AAAA")
        #expect(text(bytes("key", "key=AAAAA", limit: 4)) == "too long")
        #expect(text(bytes("key", "key=" + String(repeating: "%41", count: 5), limit: 4)) == "too long")
    }

    @Test("any bytes come back from their percent codes, as array and as buffer, at any place")
    func roundTrips() {
        var random = SeededGenerator(seed: 11)
        for _ in 0..<500 {
            let value = random.bytes(Int.random(in: 0...300, using: &random))
            var form = "key=" + percentEncoded(value)
            if Bool.random(using: &random) { form = "a=b&" + form }
            if Bool.random(using: &random) { form += "&c=%" }
            #expect(text(bytes("key", form)) == text(.value(value)))
            guard case .value(let buffer) = FormDecoder.buffer("key", in: ByteBuffer(string: form)) else {
                Issue.record("no value in \(form)")
                continue
            }
            #expect(Array(buffer.readableBytesView) == value)
        }
    }
}

@Suite("JSON strings of any bytes")
struct JSONTextTests {
    private func string(_ bytes: [UInt8]) -> String {
        var buffer = ByteBuffer()
        bytes.withUnsafeBytes { JSONText.string($0, into: &buffer) }
        return String(buffer: buffer)
    }

    @Test(
        "equations",
        arguments: [
            ("", "\"\""), ("a", "\"a\""), ("\"\\", "\"\\\"\\\\\""), ("\n\0\u{7F}", "\"\\u000a\\u0000\\u007f\""),
            ("é☃😀", "\"é☃😀\""),
        ])
    func equations(_ text: String, _ wanted: String) { #expect(string(Array(text.utf8)) == wanted) }

    @Test("what is no UTF-8 becomes low surrogates, byte by byte")
    func surrogates() {
        #expect(string([0xFF]) == "\"\\udcff\"")
        #expect(string([0xC3, 0x28]) == "\"\\udcc3(\"")
        #expect(string([0xED, 0xB3, 0xBF]) == "\"\\udced\\udcb3\\udcbf\"")
        #expect(string([0xE2, 0x98]) == "\"\\udce2\\udc98\"")
        #expect(string([0xC0, 0x80]) == "\"\\udcc0\\udc80\"")
        #expect(string([0xF4, 0x90, 0x80, 0x80]) == "\"\\udcf4\\udc90\\udc80\\udc80\"")
    }

    @Test("different bytes give different strings of valid UTF-8")
    func injective() {
        var random = SeededGenerator(seed: 12)
        var seen: [String: [UInt8]] = [:]
        for _ in 0..<5000 {
            let bytes = random.bytes(Int.random(in: 0...6, using: &random)).map { $0 | 0x80 }
            let text = string(bytes)
            #expect(seen[text, default: bytes] == bytes)
            #expect(!text.utf8.contains { $0 == 0xEF } || bytes.contains(0xEF), "a byte was repaired: \(bytes)")
            seen[text] = bytes
        }
    }
}
