// SPDX-License-Identifier: Apache-2.0

internal import KeyValue

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

    func write(for answer: Answer, _ head: inout HeadWriter) {
        switch self {
        case .everybody: head.write("Access-Control-Allow-Origin: *\r\n")
        case .one(let origin):
            head.write("Access-Control-Allow-Origin: ")
            head.write(text: origin)
            // (Who keeps the answer must not show it to another origin.)
            head.write("\r\nVary: Origin\r\n")
        }
        if let allowed = answer.allowed {
            head.write("Access-Control-Allow-Methods: ")
            head.write(allowed.allow)
            head.write(
                "\r\nAccess-Control-Allow-Headers: Authorization, Content-Type, If-Match, If-None-Match, If-Range, Range\r\nAccess-Control-Max-Age: 600\r\n"
            )
        } else {
            head.write(
                "Access-Control-Expose-Headers: Accept-Ranges, Content-Range, ETag, Retry-After, X-KV-Cursor, X-KV-Outcome\r\n"
            )
        }
    }

    /// No fields of a grant take more bytes than this.
    var longestFields: Int {
        switch self {
        case .everybody: 400
        case .one(let origin): 400 + origin.utf8.count
        }
    }
}
