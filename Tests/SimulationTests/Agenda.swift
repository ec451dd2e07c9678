// SPDX-License-Identifier: Apache-2.0

/// What is to happen and when, in microseconds of simulated time; a binary heap. Of two events at one time the one that
/// was entered first comes first.
struct Agenda {
    private struct Entry {
        let time: Int
        let order: Int
        let body: () -> Void

        func isBefore(_ other: Entry) -> Bool { (time, order) < (other.time, other.order) }
    }

    private var heap: [Entry] = []
    private var entered = 0

    mutating func enter(at time: Int, _ body: @escaping () -> Void) {
        heap.append(Entry(time: time, order: entered, body: body))
        entered += 1
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].isBefore(heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    mutating func popFirst() -> (time: Int, body: () -> Void)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var parent = 0
            while true {
                var child = 2 * parent + 1
                guard child < heap.count else { break }
                if child + 1 < heap.count, heap[child + 1].isBefore(heap[child]) { child += 1 }
                guard heap[child].isBefore(heap[parent]) else { break }
                heap.swapAt(child, parent)
                parent = child
            }
        }
        return (first.time, first.body)
    }

    mutating func removeAll() { heap = [] }
}
