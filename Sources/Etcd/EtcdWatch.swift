// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
package import NIOCore

/// The request for a stream of one key's changes.
struct EtcdWatchRequest: Encodable, Sendable {
    let key: String
    /// The first change that is wanted.
    let revision: Int64

    private enum CodingKeys: String, CodingKey { case createRequest = "create_request" }
    private enum RequestKeys: String, CodingKey {
        case key
        case revision = "start_revision"
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        var request = container.nestedContainer(keyedBy: RequestKeys.self, forKey: .createRequest)
        try request.encode(Data(key.utf8), forKey: .key)
        try request.encode(EtcdNumber(revision), forKey: .revision)
    }
}

/// The answer to a watch as it comes: a JSON object a line, in pieces of any size.
package struct EtcdWatchStream: Sendable {
    private var rest = ByteBuffer()
    private let lineLimit: Int

    package init(lineLimit: Int) { self.lineLimit = lineLimit }

    /// What has come to its end with these bytes: the key's changes, in order.
    package mutating func received(_ bytes: ByteBuffer) throws(EtcdError) -> [EtcdPair] {
        rest.writeImmutableBuffer(bytes)
        var changes: [EtcdPair] = []
        while let end = rest.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
            guard let line = rest.readSlice(length: end - rest.readerIndex) else { break }
            rest.moveReaderIndex(forwardBy: 1)
            if line.readableBytes > 0 { changes += try EtcdWatchStream.changes(line) }
        }
        guard rest.readableBytes <= lineLimit else { throw .unreadable("a line over \(lineLimit) bytes") }
        rest.discardReadBytes()
        return changes
    }

    private struct Message: Decodable {
        let result: Result?
        let error: Refusal?

        struct Result: Decodable {
            let canceled: Bool?
            let events: [Event]?
        }

        struct Event: Decodable { let kv: EtcdPair }

        struct Refusal: Decodable { let message: String? }
    }

    private static func changes(_ line: ByteBuffer) throws(EtcdError) -> [EtcdPair] {
        let message: Message
        do {
            message = try JSONDecoder().decode(Message.self, from: Data(line.readableBytesView))
        } catch {
            throw .unreadable("\(error)")
        }
        guard let result = message.result else { throw .refused(message.error?.message ?? "it ends the watch") }
        // As when the revision to begin with was compacted away.
        if result.canceled == true { throw .refused("it ends the watch") }
        return result.events?.map(\.kv) ?? []
    }
}
