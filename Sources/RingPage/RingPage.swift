// SPDX-License-Identifier: Apache-2.0

private import Crypto

/// The page at `/ui`: the plain files beside this one, which become part of the program when it is built.
package struct RingPage: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case document
        case style
        case script
        case icon
    }

    package let path: String
    package let kind: Kind
    package let bytes: [UInt8]
    /// Of the bytes, so that a browser may keep what has not changed.
    package let digest: [UInt8]

    private init(_ path: String, _ kind: Kind, _ bytes: [UInt8]) {
        self.path = path
        self.kind = kind
        self.bytes = bytes
        self.digest = Array(SHA256.hash(data: bytes))
    }

    /// All that the page consists of; it asks for nothing else but JSON.
    package static let files = [
        RingPage("/ui", .document, PackageResources.page_html),
        RingPage("/ui/page.css", .style, PackageResources.page_css),
        RingPage("/ui/page.js", .script, PackageResources.page_js),
        RingPage("/ui/icon.svg", .icon, PackageResources.icon_svg),
    ]
}
