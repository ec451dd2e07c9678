// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import RequestTracing

/// The requests of one connection that were read and not answered yet, in their order. A value without IO: it says
/// which may begin, and which answer goes out next.
///
/// Requests that change nothing run beside each other. Any other waits until all before it are done, and all after it
/// wait for it (RFC 9112, section 9.3.2), so that a read sees the write before it in its pipeline.
package struct AnswerQueue<Request> {
    /// Names a request on its connection.
    package struct ID: Hashable, Sendable {
        fileprivate let number: UInt64
    }

    /// What is at the head of the queue.
    package enum Front {
        case none
        /// Waits, or is being done.
        case unfinished(ID, RequestTrait)
        case answer(Answer, RequestTrait)
    }

    private enum Phase {
        case waiting(Request)
        case running
        case answered(Answer)
    }

    private struct Entry {
        var phase: Phase
        /// Whether it changes nothing.
        var isSafe = true
        var trait: RequestTrait

        var isWaiting: Bool { if case .waiting = phase { true } else { false } }
        var isRunning: Bool { if case .running = phase { true } else { false } }
        var isAnswered: Bool { if case .answered = phase { true } else { false } }

        mutating func run() -> Request? {
            if case .waiting(let request) = takePhase() { request } else { nil }
        }

        /// (What the entry held is handed over, not copied.)
        mutating func takePhase() -> Phase {
            var phase = Phase.running
            swap(&phase, &self.phase)
            return phase
        }
    }

    /// Those before `start` are gone. (An array is read in place, where a queue's elements would be copied.)
    private var entries: ContiguousArray<Entry> = []
    private var start = 0
    private var firstNumber: UInt64 = 0
    /// Everything before this entry has begun.
    private var nextIndex = 0
    private var running = 0
    private var isUnsafeRunning = false

    package init() {}

    package var count: Int { entries.count - start }
    /// Whether some have begun and are not done.
    package var isRunning: Bool { running > 0 }
    package var isEmpty: Bool { entries.count == start }

    package mutating func append(_ request: consuming Request, isSafe: Bool, _ trait: consuming RequestTrait) {
        entries.append(Entry(phase: .waiting(request), isSafe: isSafe, trait: trait))
    }

    /// A request that is refused without being done.
    package mutating func append(_ answer: consuming Answer, _ trait: consuming RequestTrait) {
        entries.append(Entry(phase: .answered(answer), trait: trait))
    }

    /// The next request that may begin; it counts as running from now on.
    package mutating func begin() -> (id: ID, request: Request)? {
        while nextIndex < entries.count {
            guard entries[nextIndex].isWaiting else {
                nextIndex += 1
                continue
            }
            let isSafe = entries[nextIndex].isSafe
            guard !isUnsafeRunning, isSafe || running == 0, let request = entries[nextIndex].run() else { return nil }
            running += 1
            isUnsafeRunning = !isSafe
            let id = ID(number: firstNumber + UInt64(nextIndex - start))
            nextIndex += 1
            return (id, request)
        }
        return nil
    }

    /// By which names a request is found again; nil where it has none, or is gone.
    package func trace(of id: ID) -> RequestTrace? { index(of: id).flatMap { entries[$0].trait.trace } }

    /// Whether it is still waited for.
    package func contains(_ id: ID) -> Bool { index(of: id) != nil }

    /// Whether its answer goes out without a body.
    package func isHead(_ id: ID) -> Bool { index(of: id).map { entries[$0].trait.isHead } ?? false }

    /// Adds to what is known of a request.
    package mutating func note(slot: Slot, of id: ID) {
        if let index = index(of: id) { entries[index].trait.slot = slot }
    }

    package mutating func note(failures: Int, of id: ID) {
        if let index = index(of: id) { entries[index].trait.failures = failures }
    }

    /// The answer of a request that is running; false where there is no such request (any more).
    package mutating func complete(_ id: ID, _ answer: consuming Answer) -> Bool {
        guard let index = index(of: id), entries[index].isRunning else { return false }
        entries[index].phase = .answered(answer)
        stopped(entries[index].isSafe)
        return true
    }

    /// What is at the head of the queue. An answer is taken away with it: it is to be written now.
    package mutating func takeFront() -> Front {
        guard !isEmpty else { return .none }
        guard entries[start].isAnswered else { return .unfinished(ID(number: firstNumber), entries[start].trait) }
        var front = takeEntry()
        guard case .answered(let answer) = front.takePhase() else { preconditionFailure("it was looked at above") }
        return .answer(answer, front.trait)
    }

    /// Whether this request's answer is the next to go out.
    package func isFront(_ id: ID) -> Bool { !isEmpty && id.number == firstNumber }

    /// Takes the head of the queue away: its answer has been written.
    package mutating func removeFront() {
        guard !isEmpty else { return }
        let front = takeEntry()
        if front.isRunning { stopped(front.isSafe) }
    }

    private mutating func stopped(_ isSafe: Bool) {
        running -= 1
        if !isSafe { isUnsafeRunning = false }
    }

    /// The queue is not empty.
    private mutating func takeEntry() -> Entry {
        firstNumber += 1
        if count == 1 {
            let entry = entries.removeLast()
            entries.removeAll(keepingCapacity: entries.capacity <= AnswerQueue.keptPlaces)
            nextIndex = 0
            start = 0
            return entry
        }
        let entry = entries[start]
        // (What it holds is given up now, its place when many have gone.)
        entries[start].phase = .running
        start += 1
        nextIndex = max(start, nextIndex)
        if start > AnswerQueue.keptPlaces {
            entries.removeSubrange(..<start)
            nextIndex -= start
            start = 0
        }
        return entry
    }

    /// Of how many requests the places are kept.
    private static var keptPlaces: Int { 16 }

    /// Forgets everything; what is running completes into the void.
    package mutating func removeAll() {
        firstNumber += UInt64(count)
        entries.removeAll()
        start = 0
        nextIndex = 0
        running = 0
        isUnsafeRunning = false
    }

    private func index(of id: ID) -> Int? {
        guard id.number >= firstNumber, id.number - firstNumber < UInt64(count) else { return nil }
        return start + Int(id.number - firstNumber)
    }
}
