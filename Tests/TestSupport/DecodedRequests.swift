// SPDX-License-Identifier: Apache-2.0

private import NIOCore
private import NIOEmbedded
package import NIOHTTP1

/// The parts that NIOHTTP1's decoder finds in these bytes; nil where it finds an error.
package func decodedRequests(in bytes: some Sequence<UInt8>) -> [HTTPServerRequestPart]? {
    let channel = EmbeddedChannel(
        handler: ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes)))
    defer { _ = try? channel.finish(acceptAlreadyClosed: true) }
    guard (try? channel.writeInbound(ByteBuffer(bytes: bytes))) != nil else { return nil }
    var parts: [HTTPServerRequestPart] = []
    while let part = try? channel.readInbound(as: HTTPServerRequestPart.self) { parts.append(part) }
    return parts
}
