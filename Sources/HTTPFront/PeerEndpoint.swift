// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import FoundationEssentials
private import HashRing
private import KeyValue
private import NIOCore

/// What nodes say to each other.
extension HTTPFrontHandler {
    private static let callNameBytes = 32

    func serveBatch(_ request: FrontRequest, _ id: RequestID) {
        var body = request.body
        let batch: PeerBatch
        do {
            batch = try PeerBatchCodec.decodeRequest(&body)
        } catch {
            return complete(id, ErrorAnswer.badBatch(error))
        }
        front.data.serve(batch) { served in
            switch served {
            case .answer(let answer):
                let failures = answer.outcomes.count(where: \.isTrouble)
                if failures > 0 { self.queue.note(failures: failures, of: id) }
                var buffer = ByteBuffer()
                PeerBatchCodec.encode(answer, into: &buffer)
                self.complete(id, Answer(.ok, .binary, buffer))
            case .refused(let document):
                self.complete(id, ErrorAnswer.otherRing(HTTPFrontHandler.json(document)))
            }
        }
    }

    func servePeerCall(_ request: FrontRequest, _ id: RequestID) {
        let name = request.pathRest(after: RouteTable.peerPrefix)
        guard (1...HTTPFrontHandler.callNameBytes).contains(name.utf8.count),
            name.utf8.allSatisfy({ (0x61...0x7A).contains($0) })
        else { return complete(id, ErrorAnswer.unknownPath) }
        let operators = front.operators
        let call = String(name)
        let body = request.body
        handOver(id, .peerCall) {
            do throws(PeerCallError) {
                return .json(try await operators.peerCall(call, body))
            } catch {
                return ErrorAnswer.peerCall(error)
            }
        }
    }

    /// The ring document as other nodes read it; `null` where there is none.
    private static func json(_ document: RingDocument?) -> ByteBuffer {
        // A document has nothing that JSON can't hold.
        guard let document, let json = try? JSONEncoder().encode(document) else { return ByteBuffer(string: "null") }
        return ByteBuffer(bytes: json)
    }
}

extension Outcome {
    /// Whether something is wrong here, and not just elsewhere than the other node thought, or on its way.
    fileprivate var isTrouble: Bool {
        guard case .failed(let failure) = self else { return false }
        return switch failure.reason {
        case .memcachedUnavailable, .deadline, .overloaded, .outOfMemory, .noRing, .protocolViolation, .clockAhead,
            .logFailed:
            true
        case nil, .nodeUnreachable, .tooLarge, .recovering, .notOwner, .tooFewReplicas, .changingOwner, .contended:
            false
        }
    }
}
