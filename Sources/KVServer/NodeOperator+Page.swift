// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import Control
private import FoundationEssentials
internal import HTTPFront
internal import HashRing
internal import KeyValue
internal import Memcached
internal import NIOCore
internal import Telemetry

/// What the page at `/ui` asks for.
extension NodeOperator {
    /// For how the nodes are: asked beside each other, in nobody's time.
    private static let callTime = TimeAmount.seconds(2)
    /// Where somebody waits for the answer, and a balancer would give up on it (`timeout server`).
    private static let lookTime = TimeAmount.milliseconds(600)

    func watchRing(_ tell: @Sendable (ByteBuffer) async throws -> Bool) async throws { try await ringWatch.watch(tell) }

    /// How this node is.
    func nodeSample() async -> NodeSample {
        await sample()
        let seen = await look()
        let entry = seen.isShared && seen.report.transition != nil ? await board.entry() : nil
        return NodeSample(
            seen.report, seen.isShared ? try? await control.statistics() : nil, cells.sum().series,
            progress: entry?.changeID == seen.report.transition?.id ? entry?.progress ?? [] : [],
            atMilliseconds: MonotonicClock.milliseconds())
    }

    /// How another node says that it is.
    static func askNode(
        _ node: NodeID, _ peers: PeerCaller, timeout: TimeAmount? = nil
    ) async throws -> NodeSample {
        try await peers.call(node, "status", NodeSample.Question(), timeout: timeout ?? callTime)
    }

    // MARK: What a change would move

    func plan(_ request: ChangeRequest) async throws(OperatorError) -> ByteBuffer {
        guard let document = await keeper.document else { throw .noRing }
        let preview: ChangePreview
        do throws(RingChangeError) {
            preview = try ChangePreview(request, of: document)
        } catch {
            throw .refused(error)
        }
        return json(PlanReport(preview, held: await items(of: document.ring.nodes)))
    }

    /// Of the nodes that answer. Whom the page's watch asks anyway is not asked again.
    private func items(of nodes: [NodeID]) async -> [NodeID: Int] {
        let known = await ringWatch.items()
        let told = known.compactMapValues(\.self)
        return await withTaskGroup(of: (NodeID, Int?).self) { group in
            for other in nodes where known[other] == nil {
                group.addTask {
                    guard other == node else {
                        let sample = try? await NodeOperator.askNode(other, peers, timeout: NodeOperator.lookTime)
                        return (other, sample?.items)
                    }
                    return (other, (try? await control.statistics())?["curr_items"].map { Int($0) })
                }
            }
            return await group.reduce(into: told) { $0[$1.0] = $1.1 }
        }
    }

    // MARK: A key's copies

    func copies(
        of key: Key, at holders: [NodeID], here: @escaping @Sendable () async -> Result<Envelope?, OperationFailure>
    ) async -> ByteBuffer {
        let stored = StoredKey(key)
        let epoch: Epoch = await keeper.document?.epoch ?? .none
        let now = clock.wallMilliseconds
        let copies = await withTaskGroup(of: (Int, KeyCopies.Copy).self) { group in
            for (place, holder) in holders.enumerated() {
                group.addTask {
                    if holder == node {
                        let found = await here().mapError { $0 as any Error }
                        return (place, KeyCopies.Copy(holder, found, atMilliseconds: now))
                    }
                    return (place, await copy(of: stored, at: holder, epoch, now))
                }
            }
            return await group.reduce(into: [(Int, KeyCopies.Copy)]()) { $0.append($1) }
        }
        return json(
            KeyCopies(
                slot: stored.slot, epoch: epoch, copies: copies.sorted { $0.0 < $1.0 }.map(\.1)))
    }

    private func copy(of stored: StoredKey, at holder: NodeID, _ epoch: Epoch, _ now: UInt64) async -> KeyCopies.Copy {
        let batch = PeerBatch(epoch: epoch, clock: clock.reading, operations: [.read(stored)])
        let found: Result<Envelope?, any Error>
        do {
            switch try await peers.batch(holder, batch, timeout: NodeOperator.lookTime).outcomes.first {
            case .record(let record): found = .success(record)
            case .failed(let failure): found = .failure(failure)
            case nil, .version, .stored, .applied:
                found = .failure(OperationFailure.notApplied(.protocolViolation))
            }
        } catch {
            found = .failure(error)
        }
        return KeyCopies.Copy(holder, found, atMilliseconds: now)
    }

    private func json(_ report: some Encodable) -> ByteBuffer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard var text = try? encoder.encode(report) else { preconditionFailure("a report is finite numbers and text") }
        text.append(UInt8(ascii: "\n"))
        return ByteBuffer(bytes: text)
    }
}

/// Where a key is, and what each node has of it.
struct KeyCopies: Encodable {
    let slot: Slot
    let epoch: Epoch
    /// The owner's first.
    let copies: [Copy]

    private enum CodingKeys: String, CodingKey { case slot, epoch, copies }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(Int(slot.value), forKey: .slot)
        try container.encode(epoch, forKey: .epoch)
        try container.encode(copies, forKey: .copies)
    }

    struct Copy: Encodable {
        enum State: String, Encodable {
            case stored
            case deleted
            case expired
            /// It has nothing by that name.
            case missing
            /// It does not say.
            case unknown
        }

        let node: NodeID
        let state: State
        let version: String?
        let bytes: Int?
        let contentType: String?
        /// Since 1970.
        let expiresMilliseconds: UInt64?
        /// Since 1970, as its version says.
        let writtenMilliseconds: UInt64?
        /// Why it does not say.
        let reason: String?

        init(_ node: NodeID, _ found: Result<Envelope?, any Error>, atMilliseconds now: UInt64) {
            self.node = node
            let record = try? found.get()
            switch found {
            case .failure(let error):
                state = .unknown
                reason = (error as? OperationFailure).map(\.words) ?? "\(error)"
            case .success(nil):
                state = .missing
                reason = nil
            case .success(let record?):
                state = record.isTombstone ? .deleted : record.isGone(atMilliseconds: now) ? .expired : .stored
                reason = nil
            }
            version = record?.version.description
            bytes = record.flatMap { $0.isTombstone ? nil : $0.valueLength }
            contentType = record?.contentType
            expiresMilliseconds = record?.expiryMilliseconds
            writtenMilliseconds = record.map { $0.version.microseconds / 1000 }
        }
    }
}

extension OperationFailure {
    /// For people.
    fileprivate var words: String {
        switch self {
        case .staleRing: "it stands on another ring"
        case .preconditionFailed: "it looks at a condition"
        case .notApplied(.recovering): "it is recovering what it lost"
        case .notApplied(.memcachedUnavailable), .outcomeUnknown(.memcachedUnavailable): "its memcached does not answer"
        case .notApplied(let reason), .outcomeUnknown(let reason), .tooFewHold(_, of: _, let reason): "\(reason)"
        }
    }
}
