// SPDX-License-Identifier: Apache-2.0

private import Dispatch
package import HashRing
package import KeyValue

/// Lists the stored keys of a host's memcached, by `lru_crawler metadump hash`. (`metadump all` and `stats cachedump`
/// miss keys; only `hash` lists all that were there from its beginning to its end.)
///
/// memcached 1.6.18 holds a lock while it writes to a dump's reader, so the dump is drained at full speed into memory,
/// on a thread of its own: a slow reader would stop clients' requests. A dump that says nothing is no fault by itself
/// (a large hash table with few items takes its time), as long as memcached answers others meanwhile.
package struct MetadumpScanner: Sendable {
    package struct Scan: Sendable {
        /// Sorted by slot.
        package let keys: ScannedKeys
        /// The last slot that `keys` is complete for; nil where it is complete. Scan again for those behind it.
        package let coveredThrough: Slot?
    }

    /// How long a dump may send nothing before memcached is asked whether it is alive, and how long to wait for that.
    private static let silenceMilliseconds = 500
    /// How long to wait for another dump to end: memcached does one at a time and calls itself busy.
    private static let busyTries = 200
    private static let busyPause = Duration.milliseconds(50)

    private let endpoint: MemcachedEndpoint
    private let limits: (keys: Int, bytes: Int)
    /// How many times in a row memcached may be found alive while the dump is silent.
    private let silences: Int

    /// - Parameters:
    ///   - keys, bytes: how much one scan hands on, roughly.
    ///   - silenceSeconds: how long a dump may send nothing, even if memcached answers others.
    package init(
        _ endpoint: MemcachedEndpoint, keys: Int = Limits.scanKeys, bytes: Int = Limits.scanKeyBytes,
        silenceSeconds: Int = Limits.scanSilenceSeconds
    ) {
        self.endpoint = endpoint
        self.limits = (keys, bytes)
        self.silences = silenceSeconds * 1000 / MetadumpScanner.silenceMilliseconds
    }

    /// The keys of those slots that the predicate takes.
    /// - Parameters:
    ///   - kind: pairs, or hints.
    ///   - onlyChunks: of pairs, only the chunks of large values.
    ///   - token: only those stored after the item that had this cas token.
    ///   - keys: how many are enough, roughly, those of the lowest slots; nil: as many as the scanner hands on.
    package func scan(
        _ kind: StoredKey.Kind = .pair, onlyChunks: Bool = false, newerThan token: UInt64? = nil, keys: Int? = nil,
        _ isWanted: @escaping @Sendable (Slot) -> Bool
    ) async throws -> Scan {
        let selection = MetadumpReader.Selection(kind: kind, onlyChunks: onlyChunks, newerThan: token ?? 0)
        for _ in 0..<MetadumpScanner.busyTries {
            if let scan = try await dump(selection, keys, isWanted) { return scan }
            try await Task.sleep(for: MetadumpScanner.busyPause)
        }
        throw MemcachedError.unavailable("memcached is busy with other dumps")
    }

    /// Nil where memcached is busy with another dump.
    private func dump(
        _ selection: MetadumpReader.Selection, _ keys: Int?, _ isWanted: @escaping @Sendable (Slot) -> Bool
    ) async throws -> Scan? {
        try await withCheckedThrowingContinuation { continuation in
            OwnThread.start(named: "scan") {
                continuation.resume(with: Result { try dumpHere(selection, keys, isWanted) })
            }
        }
    }

    private func dumpHere(
        _ selection: MetadumpReader.Selection, _ keys: Int?, _ isWanted: (Slot) -> Bool
    ) throws(MemcachedError) -> Scan? {
        var connection = try TextConnection(
            endpoint, timeoutMilliseconds: MetadumpScanner.silenceMilliseconds)
        try connection.send("lru_crawler metadump hash\r\n".utf8)
        var reader = MetadumpReader(
            selection, wanted: Slot.all.map(isWanted),
            maximumKeys: min(keys ?? limits.keys, limits.keys), maximumBytes: limits.bytes)
        var silences = 0
        while reader.state == .reading {
            do throws(MemcachedError) {
                try connection.receive { reader.take($0) }
                silences = 0
            } catch .timedOut where silences < self.silences {
                silences += 1
                try checkIsAlive()
            }
        }
        switch reader.state {
        case .busy: return nil
        case .failed(let line): throw .protocolViolation(line)
        case .reading, .ended: return reader.sorted()
        }
    }

    /// Throws where memcached does not answer a new connection in time.
    private func checkIsAlive() throws(MemcachedError) {
        var connection = try TextConnection(
            endpoint, timeoutMilliseconds: MetadumpScanner.silenceMilliseconds, bufferBytes: 128)
        try connection.send("version\r\n".utf8)
        try connection.receive { _ in }
    }
}

/// Takes in a dump, a piece at a time, cut anywhere.
package struct MetadumpReader {
    package enum State: Hashable {
        case reading
        case ended
        case busy
        case failed(String)
    }

    /// Which items are wanted, whatever their slot.
    package struct Selection: Sendable {
        var kind = StoredKey.Kind.pair
        var onlyChunks = false
        /// Items whose cas token is not above it are left out.
        var newerThan: UInt64 = 0

        package init(kind: StoredKey.Kind = .pair, onlyChunks: Bool = false, newerThan: UInt64 = 0) {
            self.kind = kind
            self.onlyChunks = onlyChunks
            self.newerThan = newerThan
        }
    }

    package private(set) var state = State.reading
    private let selection: Selection
    private let wanted: [Bool]
    private let maximumKeys: Int
    private let maximumBytes: Int
    private var keys = ScannedKeys()
    private var slots: [UInt16] = []
    /// Keys of slots above this are left out, for there are too many.
    private var lastSlot = UInt16(Slot.count - 1)
    /// The beginning of a line whose end has not come.
    private var rest: [UInt8] = []
    private var decoded: [UInt8] = []

    /// The longest line of a dump: a key of 250 bytes, each as three, and some numbers.
    private static let lineBytes = 4096

    package init(_ selection: Selection = Selection(), wanted: [Bool], maximumKeys: Int, maximumBytes: Int) {
        self.selection = selection
        self.wanted = wanted
        self.maximumKeys = maximumKeys
        self.maximumBytes = maximumBytes
    }

    package mutating func take(_ bytes: UnsafeRawBufferPointer) {
        var start = 0
        while start < bytes.count, state == .reading {
            guard let end = bytes[start...].firstIndex(of: 0x0a) else {
                rest.append(contentsOf: bytes[start...])
                if rest.count > MetadumpReader.lineBytes { state = .failed("a line without end") }
                return
            }
            if rest.isEmpty {
                line(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
            } else {
                rest.append(contentsOf: bytes[start..<end])
                let whole = rest
                rest.removeAll(keepingCapacity: true)
                whole.withUnsafeBytes { line($0) }
            }
            start = end + 1
        }
    }

    private mutating func line(_ line: UnsafeRawBufferPointer) {
        if line.starts(with: "key=".utf8) {
            let name = line[4...].prefix { $0 != UInt8(ascii: " ") }
            // Of another kind (a control key, say), or one of the others.
            guard name.first == selection.kind.rawValue else { return }
            let fields = line[name.endIndex...]
            guard let token = number(behind: " cas=", in: fields), let size = number(behind: " size=", in: fields)
            else {
                state = .failed(String(decoding: line.prefix(80), as: UTF8.self))
                return
            }
            if token > selection.newerThan { append(name, token: token, size: UInt32(clamping: size)) }
        } else if line.starts(with: "END".utf8) {
            state = .ended
        } else if line.starts(with: "BUSY".utf8) {
            state = .busy
        } else {
            state = .failed(String(decoding: line.prefix(80), as: UTF8.self))
        }
    }

    private func number(behind name: StaticString, in fields: Slice<UnsafeRawBufferPointer>) -> UInt64? {
        let length = name.utf8CodeUnitCount
        var index = fields.startIndex
        while index + length < fields.endIndex {
            var matching = 0
            while matching < length, fields[index + matching] == name.utf8Start[matching] { matching += 1 }
            guard matching == length else {
                index += 1
                continue
            }
            var number: UInt64 = 0
            for byte in fields[(index + length)...] {
                guard (0x30...0x39).contains(byte) else { break }
                number = number &* 10 &+ UInt64(byte - 0x30)
            }
            return number
        }
        return nil
    }

    private mutating func append(_ name: Slice<UnsafeRawBufferPointer>, token: UInt64, size: UInt32) {
        decoded.removeAll(keepingCapacity: true)
        var index = name.startIndex
        while index < name.endIndex {
            let byte = name[index]
            if byte == UInt8(ascii: "%"), index + 2 < name.endIndex, let high = hexValue(name[index + 1]),
                let low = hexValue(name[index + 2])
            {
                decoded.append(high << 4 | low)
                index += 3
            } else {
                decoded.append(byte)
                index += 1
            }
        }
        guard let slot = StoredKey.slot(of: decoded), slot.value <= lastSlot, wanted[Int(slot.value)],
            StoredKey(stored: decoded) != nil,
            !selection.onlyChunks || decoded.withUnsafeBytes({ StoredKey.isChunk($0) })
        else { return }
        keys.append(decoded, token: token, size: size)
        slots.append(slot.value)
        if keys.count > maximumKeys || keys.keyBytes > maximumBytes { leaveOutHighSlots() }
    }

    /// Halves what is held, whole slots at a time; at least one slot stays.
    private mutating func leaveOutHighSlots() {
        var counts = [Int](repeating: 0, count: Slot.count)
        for slot in slots { counts[Int(slot)] += 1 }
        var sum = 0
        var last: UInt16?
        for slot in 0..<Slot.count where counts[slot] > 0 {
            if last != nil, sum + counts[slot] > slots.count / 2 { break }
            sum += counts[slot]
            last = UInt16(slot)
        }
        guard let last, last < lastSlot, sum < slots.count else { return }
        lastSlot = last
        let kept = slots.indices.filter { slots[$0] <= last }
        (keys, slots) = (keys.picking(kept), kept.map { slots[$0] })
    }

    /// All that was taken in, by slot (a counting sort).
    package func sorted() -> MetadumpScanner.Scan {
        var starts = [Int](repeating: 0, count: Slot.count + 1)
        for slot in slots { starts[Int(slot) + 1] += 1 }
        for slot in 0..<Slot.count { starts[slot + 1] += starts[slot] }
        var order = [Int](repeating: 0, count: slots.count)
        for (index, slot) in slots.enumerated() {
            order[starts[Int(slot)]] = index
            starts[Int(slot)] += 1
        }
        let isComplete = lastSlot == UInt16(Slot.count - 1)
        return MetadumpScanner.Scan(keys: keys.picking(order), coveredThrough: isComplete ? nil : Slot(Int(lastSlot)))
    }

    private func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }
}
