// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// One process's part of the memory in which a host's processes count: a list of series that only grows, each with its
/// name and its cells.
///
/// It describes itself, so that processes of two releases, which count other things, can read each other's. The number
/// of words that are in use is stored last, so that nobody ever sees half a series, also of a process that died while
/// it added one.
package final class CellPart: Sendable {
    /// A series as it stands in the list.
    struct Header {
        var kind: SeriesKind
        var nameBytes: Int
        var bounds: Int

        static let words = 1

        init(kind: SeriesKind, nameBytes: Int, bounds: Int) {
            self.kind = kind
            self.nameBytes = nameBytes
            self.bounds = bounds
        }

        /// Nil for one of a release that knows more kinds: nothing behind it can be read.
        init?(word: Int) {
            guard let kind = SeriesKind(rawValue: word & 0xFF) else { return nil }
            self.init(kind: kind, nameBytes: word >> 8 & 0xFFFF, bounds: word >> 24 & 0xFFFF)
        }

        var word: Int { kind.rawValue | nameBytes << 8 | bounds << 24 }
        var nameWords: Int { (nameBytes + CellPointer.stride - 1) / CellPointer.stride }
        var cells: Int { kind.isHistogram ? bounds + 2 : 1 }
        /// The header's, the name's, the bounds' and the cells'.
        var size: Int { Header.words + nameWords + bounds + cells }
    }

    private static let longestName = 1024
    private static let mostBounds = 64

    private let memory: CellPointer
    /// Where the cells of each series are, as far as this process has asked.
    private let known = Mutex<[SeriesName: Cells]>([:])

    init(_ memory: CellPointer) { self.memory = memory }

    /// The cells of a series, made where there are none. Those that a process before this one has left are gone on
    /// with.
    /// - Parameter bounds: of a histogram's buckets, in the unit in which it counts, growing.
    /// - Returns: nil where there is no room left, or it is counted as something else already.
    func cells(_ name: SeriesName, _ kind: SeriesKind, bounds: [Int] = []) -> Cells? {
        precondition(bounds.isEmpty == !kind.isHistogram && bounds.count <= CellPart.mostBounds)
        return known.withLock { known in
            if known.isEmpty { forEachCells { known[$0] = $1 } }
            if let held = known[name] { return held.kind == kind && held.bounds == bounds ? held : nil }
            guard let made = append(name, kind, bounds) else { return nil }
            known[name] = made
            return made
        }
    }

    private func append(_ name: SeriesName, _ kind: SeriesKind, _ bounds: [Int]) -> Cells? {
        let text = Array(name.text.utf8)
        let header = Header(kind: kind, nameBytes: text.count, bounds: bounds.count)
        let start = max(memory.load(0), 1)
        guard text.count <= CellPart.longestName, start + header.size <= memory.count else { return nil }
        let entry = memory.advanced(by: start, count: header.size)
        // (A process that died in here may have left anything behind what is in use.)
        for index in 0..<header.size { entry.store(0, index) }
        entry.store(header.word, 0)
        for (index, byte) in text.enumerated() {
            let word = Header.words + index / CellPointer.stride
            entry.store(entry.load(word) | Int(byte) << (8 * (index % CellPointer.stride)), word)
        }
        for (index, bound) in bounds.enumerated() { entry.store(bound, Header.words + header.nameWords + index) }
        memory.storeReleasing(start + header.size, 0)
        return CellPart.cells(of: entry, header)
    }

    private static func cells(of entry: CellPointer, _ header: Header) -> Cells {
        let start = Header.words + header.nameWords
        return Cells(
            kind: header.kind, bounds: (0..<header.bounds).map { entry.load(start + $0) },
            memory: entry.advanced(by: start + header.bounds, count: header.cells))
    }

    private func forEachCells(_ body: (SeriesName, Cells) -> Void) {
        let end = min(memory.loadAcquiring(0), memory.count)
        var position = 1
        while position < end, let header = Header(word: memory.load(position)), position + header.size <= end {
            let entry = memory.advanced(by: position, count: header.size)
            let bytes = (0..<header.nameBytes).map {
                UInt8(
                    truncatingIfNeeded: entry.load(Header.words + $0 / CellPointer.stride)
                        >> (8 * ($0 % CellPointer.stride)))
            }
            body(SeriesName(text: String(decoding: bytes, as: UTF8.self)), CellPart.cells(of: entry, header))
            position += header.size
        }
    }

    /// What is counted now.
    func forEachSeries(_ body: (Series) -> Void) { forEachCells { body(Series(name: $0, value: $1.value)) } }

    func forgetGauges() { forEachCells { if $1.kind == .gauge { $1.memory.store(Int(bits: 0), 0) } } }
}

/// Where one series is counted. Adding to it neither locks nor waits.
struct Cells: Sendable {
    let kind: SeriesKind
    let bounds: [Int]
    fileprivate let memory: CellPointer

    func add(_ amount: Int) { memory.add(amount, 0) }

    func set(_ value: Double) { memory.store(Int(bits: value), 0) }

    func add(_ amount: Double) { memory.add(amount, 0) }

    /// Of a histogram: one more value in its bucket, and in the sum.
    func record(_ value: Int) {
        var bucket = 0
        while bucket < bounds.count, value > bounds[bucket] { bucket += 1 }
        memory.add(1, bucket)
        memory.add(value, bounds.count + 1)
    }

    fileprivate var value: Series.Value {
        switch kind {
        case .counter: .counter(Double(memory.load(0)))
        case .gauge: .gauge(Double(bits: memory.load(0)))
        case .durations, .sizes:
            .histogram(
                Histogram(
                    bounds: bounds.map { Double($0) / kind.unit }, counts: (0...bounds.count).map { memory.load($0) },
                    sum: Double(memory.load(bounds.count + 1)) / kind.unit))
        }
    }
}
