// SPDX-License-Identifier: Apache-2.0

/// What somebody else wrote, on one line that can't steer a terminal: whatever ends a line or is no printable character
/// becomes a blank.
package func oneLine(_ text: String) -> String {
    var line = ""
    for scalar in text.unicodeScalars { line.unicodeScalars.append(scalar.isPrintable ? scalar : " ") }
    return line
}

extension Unicode.Scalar {
    fileprivate var isPrintable: Bool {
        switch properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
        default: true
        }
    }
}

/// A key as a line shows it: printable UTF-8 as it is, everything else, and the backslash, as `\xHH`, so that two
/// different keys look different.
package func printable(_ bytes: [UInt8]) -> String {
    func escaped(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { "\\x" + ($0 < 16 ? "0" : "") + String($0, radix: 16, uppercase: true) }.joined()
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { return escaped(bytes) }
    var line = ""
    for scalar in text.unicodeScalars {
        if scalar.isPrintable, scalar != "\\" {
            line.unicodeScalars.append(scalar)
        } else {
            line += escaped(Array(String(scalar).utf8))
        }
    }
    return line
}
