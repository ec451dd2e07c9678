// SPDX-License-Identifier: Apache-2.0

import HTTPFront
import TestSupport
import Testing

@Suite("The order of a connection's requests")
struct AnswerQueueTests {
    private typealias Queue = AnswerQueue<Int>

    @Test("safe requests run beside each other; any other runs alone, after what came before it")
    func barriers() {
        var queue = Queue()
        for (number, isSafe) in [true, true, false, false, true].enumerated() {
            queue.append(number, isSafe: isSafe, .init())
        }
        let first = queue.begin()!
        let second = queue.begin()!
        #expect([first.request, second.request] == [0, 1])
        #expect(queue.begin() == nil)
        check(queue.complete(second.id, .ok))
        #expect(queue.begin() == nil)
        check(queue.complete(first.id, .ok))
        let third = queue.begin()!
        #expect(third.request == 2)
        #expect(queue.begin() == nil)
        check(queue.complete(third.id, .ok))
        let fourth = queue.begin()!
        #expect(fourth.request == 3)
        #expect(queue.begin() == nil)
        check(queue.complete(fourth.id, .ok))
        #expect(queue.begin()!.request == 4)
    }

    @Test("an answer goes out only when all before it have, and comes once")
    func order() {
        var queue = Queue()
        for number in 0..<3 { queue.append(number, isSafe: true, .init()) }
        let ids = (0..<3).map { _ in queue.begin()!.id }
        check(queue.complete(ids[2], .text("c")))
        guard case .unfinished(let front, _) = queue.takeFront() else {
            Issue.record("an answer overtook")
            return
        }
        #expect(front == ids[0])
        check(queue.complete(ids[0], .text("a")))
        check(!queue.complete(ids[0], .text("again")))
        check(taken(&queue) == [.text("a")])
        check(queue.complete(ids[1], .text("b")))
        check(taken(&queue) == [.text("b"), .text("c")])
        check(!queue.complete(ids[1], .text("late")))
        #expect(queue.isEmpty)
    }

    @Test("random histories: answers in order, one writer at a time, nobody forgotten")
    func randomHistories() {
        for seed in UInt64(1)...200 {
            var random = SeededGenerator(seed: seed)
            var queue = Queue()
            var running: [(id: Queue.ID, number: Int, isSafe: Bool)] = []
            var isSafe: [Bool] = []
            var answered: [Answer] = []
            var refused: Set<Int> = []
            while answered.count < 60 {
                switch Int.random(in: 0..<4, using: &random) {
                case 0 where isSafe.count < 60:
                    isSafe.append(Bool.random(using: &random))
                    if Int.random(in: 0..<8, using: &random) == 0 {
                        refused.insert(isSafe.count - 1)
                        queue.append(.text("\(isSafe.count - 1)"), .init())
                    } else {
                        queue.append(isSafe.count - 1, isSafe: isSafe[isSafe.count - 1], .init())
                    }
                case 1:
                    guard let (id, number) = queue.begin() else { continue }
                    #expect(running.allSatisfy { $0.isSafe } && (isSafe[number] || running.isEmpty), "seed \(seed)")
                    running.append((id, number, isSafe[number]))
                case 2 where !running.isEmpty:
                    let (id, number, _) = running.remove(at: Int.random(in: 0..<running.count, using: &random))
                    check(queue.complete(id, .text("\(number)")))
                default: answered += taken(&queue)
                }
            }
            #expect(answered == (0..<60).map { .text("\($0)") }, "seed \(seed)")
        }
    }

    /// (The macro can't look into an expression that changes what it looks at.)
    private func check(_ isTrue: Bool, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(isTrue, sourceLocation: sourceLocation)
    }

    private func taken(_ queue: inout Queue) -> [Answer] {
        var answers: [Answer] = []
        while case .answer(let answer, _) = queue.takeFront() { answers.append(answer) }
        return answers
    }
}
