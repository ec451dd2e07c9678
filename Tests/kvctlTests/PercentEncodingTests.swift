// SPDX-License-Identifier: Apache-2.0

import Control
import Testing

@Suite("Percent encoding") struct PercentEncodingTests {
    @Test func onlyWhatIsUnreservedStays() {
        #expect(PercentEncoding.encode("aZ09-_~") == "aZ09-_~")
        #expect(PercentEncoding.encode("a b/c.d%+:&") == "a%20b%2Fc%2Ed%25%2B%3A%26")
        #expect(PercentEncoding.encode([0x00, 0x0A, 0xFF]) == "%00%0A%FF")
        #expect(PercentEncoding.encode("ü") == "%C3%BC")
    }

    @Test func aLineShowsDifferentKeysDifferently() {
        #expect(printable(Array("grün \\ x".utf8)) == "grün \\x5C x")
        #expect(oneLine("a\r\nb\u{1B}[31m\u{2028}\\ü") == "a  b [31m \\ü")
        #expect(printable([0x61, 0x0A, 0x7F]) == "a\\x0A\\x7F")
        #expect(printable([0xFF, 0x41]) == "\\xFF\\x41")
        #expect(printable(Array("a\u{2028}b\u{202E}".utf8)) == "a\\xE2\\x80\\xA8b\\xE2\\x80\\xAE")
    }
}
