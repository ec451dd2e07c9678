// SPDX-License-Identifier: Apache-2.0

internal import Control
internal import HashRing
private import NIOHTTP1

/// One ring change, from its request until it is over, and meanwhile how far it is.
///
/// The change goes on in the cluster whatever becomes of the request. So where the request breaks off, the nodes are
/// asked how it ended.
struct ChangeRun {
    /// Moving pairs takes as long as it takes.
    private static let longest = 86_400.0
    private static let pollPause = Duration.milliseconds(500)
    /// A node that does not answer should not hold up the progress of the others.
    private static let pollSeconds = 2.0
    /// So many looks in a row at which no node answers end the waiting.
    private static let blindLooks = 60
    /// So many in a row at which nodes answer, and none knows of the change: it was not begun. (What one node began a
    /// moment before it died, the workers of others may hear of later than they answer.)
    private static let unknowingLooks = 10

    private let client: StoreClient
    private let isJSON: Bool

    init(_ client: StoreClient, isJSON: Bool) {
        self.client = client
        self.isJSON = isJSON
    }

    private struct Ended: Encodable {
        let change: String
        let outcome: String
        let detail: String?
    }

    func make(_ request: ChangeRequest, query: String = "") async throws {
        try await make(
            target: ChangeRun.target(of: request) + query, isMadeBy: { request.isMet(by: $0) }, request.sentence)
    }

    func abort() async throws {
        try await make(target: "/abort_change", isMadeBy: { _ in true }, "abort", wanted: .aborted)
    }

    func resume() async throws {
        let ring = try await client.ring()
        let statuses = await client.statuses(of: ring.everybody, seconds: client.seconds).compactMap {
            try? $0.status.get()
        }
        guard let newest = statuses.max(by: { $0.epoch < $1.epoch }) else {
            throw Failure(.unavailable, "no node tells its status")
        }
        guard let transition = newest.transition else {
            throw Failure(.notFound, "no ring change is under way")
        }
        if transition.abortReason != nil {
            try await follow(
                isMadeBy: { $0 == transition.change }, transition.change.sentence, wanted: .aborted,
                asking: ring.everybody)
        } else {
            try await make(.exactly(transition.change))
        }
    }

    private static func target(of request: ChangeRequest) -> String {
        switch request {
        case .exactly(.add(let node, let positions)):
            // (The same change as the one that picked them.)
            positions.count == 1
                ? "/add_node/\(positions[0])/\(node)" : "/add_node/auto/\(node)?positions=\(positions.count)"
        case .exactly(.remove(let node)): "/remove_node/\(node)"
        case .exactly(.replace(let old, let new)): "/replace_node/\(old)/\(new)"
        case .addAnywhere(let node, let count):
            "/add_node/auto/\(node)" + (count.map { "?positions=\($0)" } ?? "")
        }
    }

    private func make(
        target: String, isMadeBy: @escaping @Sendable (RingChange) -> Bool, _ sentence: String,
        wanted: FinishedChange.Outcome = .completed
    ) async throws {
        let watched = try await client.ring().everybody
        let answer = await withTaskGroup(of: Result<StoreClient.Answer, Failure>?.self) { group in
            group.addTask {
                do {
                    return .success(
                        try await client.send(
                            .init(method: .POST, target: target, isRepeatable: false, seconds: ChangeRun.longest)))
                } catch let failure as Failure {
                    return .failure(failure)
                } catch {
                    return .failure(Failure(.unknown, "\(error)"))
                }
            }
            group.addTask {
                await showProgress(of: watched)
                return nil
            }
            var answer: Result<StoreClient.Answer, Failure>?
            for await result in group where answer == nil {
                answer = result
                if answer != nil { group.cancelAll() }
            }
            return answer ?? .failure(Failure(.unknown, "the request was given up"))
        }
        endLine()
        do {
            let answer = try answer.get()
            let outcome = answer.outcome(changes: true)
            if outcome == .done {
                return try tell(sentence, wanted.rawValue, answer.text.split(separator: "\n").joined(separator: " "))
            }
            throw Failure(outcome, StoreClient.reason(of: answer, at: client.entrance))
        } catch let failure as Failure where failure.outcome == .unknown {
            Console.error("\(failure.message); asking the nodes how it goes on")
            try await follow(isMadeBy: isMadeBy, sentence, wanted: wanted, asking: watched)
        }
    }

    /// Waits until no change is under way any more, and says how this one ended.
    /// - Parameter nodes: who may know; whoever was asked for the change may be the one that is gone.
    private func follow(
        isMadeBy: (RingChange) -> Bool, _ sentence: String, wanted: FinishedChange.Outcome, asking nodes: [NodeID]
    ) async throws {
        var watched = nodes
        var shown = ""
        var blind = 0
        var unknowing = 0
        while true {
            let statuses = await client.statuses(of: watched, seconds: ChangeRun.pollSeconds).compactMap {
                try? $0.status.get()
            }
            guard let newest = statuses.max(by: { $0.epoch < $1.epoch }) else {
                blind += 1
                guard blind < ChangeRun.blindLooks else {
                    throw Failure(.unknown, "no node answers; ask again with `kvctl status`")
                }
                try await Task.sleep(for: ChangeRun.pollPause)
                continue
            }
            blind = 0
            unknowing += 1
            if let progress = ChangeProgress(statuses) {
                unknowing = 0
                // (Where nobody reads any more, the change goes on all the same.)
                try? show(progress, after: &shown)
                watched = Set(watched + (newest.transition?.to.ring.nodes ?? [])).sorted()
                try await Task.sleep(for: ChangeRun.pollPause)
                continue
            }
            endLine()
            guard let last = newest.lastChange, isMadeBy(last.change) else {
                guard unknowing < ChangeRun.unknowingLooks else {
                    throw Failure(.unavailable, "the change was not begun; ask for it again")
                }
                try await Task.sleep(for: ChangeRun.pollPause)
                continue
            }
            guard last.outcome == wanted else {
                throw Failure(.refused, "the change was \(last.outcome.rawValue): \(last.reason)")
            }
            return try tell(last.change.sentence, last.outcome.rawValue, last.reason)
        }
    }

    private func showProgress(of nodes: [NodeID]) async {
        var shown = ""
        var watched = nodes
        while !Task.isCancelled {
            // (Ends by being cancelled.)
            try? await Task.sleep(for: ChangeRun.pollPause)
            let statuses = await client.statuses(of: watched, seconds: ChangeRun.pollSeconds).compactMap {
                try? $0.status.get()
            }
            guard !Task.isCancelled, let progress = ChangeProgress(statuses) else { continue }
            let joining = statuses.flatMap { $0.transition?.to.ring.nodes ?? [] }
            watched = Set(watched + joining).sorted()
            // (Where nobody reads any more, the change goes on all the same.)
            try? show(progress, after: &shown)
        }
    }

    private func show(_ progress: ChangeProgress, after shown: inout String) throws {
        if isJSON { return try Console.json(progress) }
        if Console.isTerminal { return try Console.redraw(progress.bar(width: Console.width)) }
        guard progress.line != shown else { return }
        shown = progress.line
        try Console.say(shown)
    }

    /// (Where nobody reads any more, whatever is said next finds out.)
    private func endLine() {
        if !isJSON, Console.isTerminal { try? Console.write(Array("\r\u{1B}[K".utf8)) }
    }

    private func tell(_ sentence: String, _ outcome: String, _ detail: String) throws {
        let detail = detail == "OK" || detail.isEmpty ? nil : detail
        try Console.tell {
            if isJSON { return try Console.json(Ended(change: sentence, outcome: outcome, detail: detail)) }
            try Console.say("\(sentence): \(outcome)\(detail.map { "; \($0)" } ?? "")")
        }
    }
}

extension ChangeRequest {
    fileprivate var sentence: String {
        switch self {
        case .exactly(let change): change.sentence
        case .addAnywhere(let node, let count): "add \(node)" + (count.map { " at \($0) positions" } ?? "")
        }
    }
}
