// SPDX-License-Identifier: Apache-2.0

private import CLinux
private import Glibc
private import Synchronization

/// The memory in which all processes of a host count: a part of it for each worker slot, and one for the supervisor.
///
/// The supervisor makes it and hands it to its workers as an open file without a name. Each counts in its own part and
/// reads all of them, so one scrape of any worker has the sum, whatever memcached does; what a worker has counted
/// outlives it, and the next one of its slot counts on. It ends with the last of these processes.
///
/// Its size is fixed and sealed; pages that nothing was counted in take no memory.
package struct CellMemory: Sendable {
    /// Of one process, in bytes: some thousand series.
    package static let partBytes = 1 << 20
    private static let seals = Int32(KV_F_SEAL_SEAL | KV_F_SEAL_SHRINK | KV_F_SEAL_GROW)

    private let base: CellPointer
    /// Parts of workers; the supervisor's is behind them.
    private let workerSlots: Int

    private static func bytes(_ workerSlots: Int) -> Int { (workerSlots + 1) * partBytes }

    /// The file that a supervisor makes; nil where the system has none to give.
    /// - Parameter workerSlots: how many slots there are.
    /// - Returns: its descriptor, close-on-exec.
    package static func makeFile(workerSlots: Int) -> CInt? {
        let descriptor = memfd_create("kvserver-metrics", UInt32(KV_MFD_CLOEXEC | KV_MFD_ALLOW_SEALING))
        guard descriptor >= 0 else { return nil }
        guard ftruncate(descriptor, bytes(workerSlots)) == 0, fcntl(descriptor, CInt(KV_F_ADD_SEALS), seals) == 0 else {
            close(descriptor)
            return nil
        }
        return descriptor
    }

    /// Maps a file that `makeFile` made.
    /// - Returns: nil where the descriptor is no such file, as when a supervisor of another release made it.
    package init?(file descriptor: CInt, workerSlots: Int) {
        var status = stat()
        guard fcntl(descriptor, CInt(KV_F_GET_SEALS)) == CellMemory.seals, fstat(descriptor, &status) == 0,
            Int(status.st_size) == CellMemory.bytes(workerSlots),
            let base = mmap(
                nil, CellMemory.bytes(workerSlots), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            base != MAP_FAILED
        else { return nil }
        self.base = CellPointer(base, count: CellMemory.bytes(workerSlots) / CellPointer.stride)
        self.workerSlots = workerSlots
    }

    /// Memory of this process alone, for one that was given none.
    package init(workerSlots: Int) {
        let bytes = CellMemory.bytes(workerSlots)
        guard let base = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            base != MAP_FAILED
        else { preconditionFailure("a process of ours has address space left") }
        self.base = CellPointer(base, count: bytes / CellPointer.stride)
        self.workerSlots = workerSlots
    }

    private func part(_ index: Int) -> CellPointer {
        let count = CellMemory.partBytes / CellPointer.stride
        return base.advanced(by: index * count, count: count)
    }

    /// - Parameter slot: a worker's; nil: the supervisor's.
    package func part(ofSlot slot: Int?) -> CellPart {
        precondition(slot.map { (0..<workerSlots).contains($0) } ?? true, "there are so many slots")
        return CellPart(part(slot ?? workerSlots))
    }

    /// To be called once the worker of this slot is gone: what it counted stays, and of what it measured nothing is so
    /// any more.
    package func forgetGauges(ofSlot slot: Int) { part(ofSlot: slot).forgetGauges() }

    /// What all processes have counted, added up.
    package func sum() -> HostSum {
        var sum = HostSum()
        for index in 0...workerSlots { CellPart(part(index)).forEachSeries { sum.add($0) } }
        return sum
    }
}

/// Words of memory that several processes share.
///
/// Every access is atomic, so that it may be used on any thread; the memory is never unmapped.
struct CellPointer: Sendable {
    static let stride = MemoryLayout<Atomic<Int>>.stride

    // Safe, though the compiler can't see it: the pointer never changes, what it points to is never unmapped, and every
    // access to that, here and in other processes, is an atomic one within `count`.
    private nonisolated(unsafe) let words: UnsafeMutablePointer<Atomic<Int>>
    let count: Int

    /// - Parameter count: how many words are there; they hold a number each, whatever it is.
    fileprivate init(_ memory: UnsafeMutableRawPointer, count: Int) {
        self.words = memory.bindMemory(to: Atomic<Int>.self, capacity: count)
        self.count = count
    }

    private init(words: UnsafeMutablePointer<Atomic<Int>>, count: Int) {
        self.words = words
        self.count = count
    }

    func advanced(by offset: Int, count: Int) -> CellPointer {
        precondition(offset >= 0 && count >= 0 && offset + count <= self.count, "within the memory")
        return CellPointer(words: words + offset, count: count)
    }

    func load(_ index: Int) -> Int { words[checked(index)].load(ordering: .relaxed) }

    func store(_ value: Int, _ index: Int) { words[checked(index)].store(value, ordering: .relaxed) }

    func add(_ value: Int, _ index: Int) { words[checked(index)].wrappingAdd(value, ordering: .relaxed) }

    func loadAcquiring(_ index: Int) -> Int { words[checked(index)].load(ordering: .acquiring) }

    func storeReleasing(_ value: Int, _ index: Int) { words[checked(index)].store(value, ordering: .releasing) }

    /// Adds to a number that is stored as the bits of a `Double`.
    func add(_ value: Double, _ index: Int) {
        var held = load(index)
        while true {
            let (exchanged, original) = words[checked(index)].weakCompareExchange(
                expected: held, desired: Int(bits: Double(bits: held) + value), ordering: .relaxed)
            if exchanged { return }
            held = original
        }
    }

    private func checked(_ index: Int) -> Int {
        precondition(index >= 0 && index < count, "within the memory")
        return index
    }
}

extension Int {
    init(bits value: Double) { self.init(bitPattern: UInt(value.bitPattern)) }
}

extension Double {
    init(bits: Int) { self.init(bitPattern: UInt64(UInt(bitPattern: bits))) }
}
