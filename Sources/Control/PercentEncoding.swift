// SPDX-License-Identifier: Apache-2.0

/// Keys as a part of a URL.
package enum PercentEncoding {
    /// Every byte but RFC 3986's unreserved ones as `%XX`; a slash too, and a dot, which many a client takes for a way
    /// through the path where it stands alone.
    package static func encode(_ bytes: some Sequence<UInt8>) -> String {
        var text = ""
        for byte in bytes {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "~"):
                text.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                text += (byte < 16 ? "%0" : "%") + digits
            }
        }
        return text
    }

    package static func encode(_ text: String) -> String { encode(Array(text.utf8)) }
}
