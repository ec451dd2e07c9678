// SPDX-License-Identifier: Apache-2.0

internal import KeyValue
internal import NIOCore

/// What an answer says to a page of another origin that may see it (Fetch Standard, section 3.2: the CORS protocol).
/// One without it says nothing of origins, so that browsers keep it from such pages.
package enum CrossOriginGrant: Hashable, Sendable {
    case everybody
    case one(String)

    /// Nil for a page that may not.
    init?(_ origins: OriginList, for origin: String) {
        guard origins.contains(origin) else { return nil }
        self = origins.hasAll ? .everybody : .one(origin)
    }

    func write(for answer: Answer, into buffer: inout ByteBuffer) {
        switch self {
        case .everybody: buffer.writeStaticString("Access-Control-Allow-Origin: *\r\n")
        case .one(let origin):
            // (Who keeps the answer must not show it to another origin.)
            buffer.writeString("Access-Control-Allow-Origin: \(origin)\r\nVary: Origin\r\n")
        }
        if let allowed = answer.allowed {
            buffer.writeStaticString("Access-Control-Allow-Methods: ")
            buffer.writeStaticString(allowed.allow)
            buffer.writeStaticString(
                "\r\nAccess-Control-Allow-Headers: Authorization, Content-Type, If-Match, If-None-Match, If-Range, Range\r\nAccess-Control-Max-Age: 600\r\n"
            )
        } else {
            buffer.writeStaticString(
                "Access-Control-Expose-Headers: Accept-Ranges, Content-Range, ETag, Retry-After, X-KV-Cursor, X-KV-Outcome\r\n"
            )
        }
    }
}
