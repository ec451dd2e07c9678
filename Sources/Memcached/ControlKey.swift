// SPDX-License-Identifier: Apache-2.0

/// The name of something that a host's workers share besides pairs. Its stored form begins with `kv:`, and those of
/// pairs with `d`, so that no client's key can be taken for one.
package struct ControlKey: Hashable, Sendable {
    let bytes: [UInt8]

    /// The host's stamp, which every batch asks for.
    static let stamp = ControlKey("stamp")

    /// - Parameter name: letters, digits, `.` and `-`.
    package init(_ name: String) {
        precondition(
            name.utf8.count <= 64 && name.utf8.allSatisfy { (33...126).contains($0) }, "a control key's name is ours")
        self.bytes = Array("kv:\(name)".utf8)
    }
}
