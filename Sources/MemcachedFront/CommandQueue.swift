// SPDX-License-Identifier: Apache-2.0

private import DequeModule
internal import KeyValue
package import NIOCore

/// The commands of one connection that were read and not answered yet, in their order. A value without IO: it says
/// which may begin, and which answer goes out next.
///
/// Reads run beside each other, and so do writes of different keys; a read waits for the writes before it, a write for
/// the reads and for the writes of its key, and nothing overtakes what waits. So a connection sees its own writes, and
/// each key's in their order.
package struct CommandQueue {
    /// Names a command on its connection.
    package struct ID: Hashable, Sendable {
        fileprivate let number: UInt64
    }

    package struct Trait: Hashable, Sendable {
        package var verb: Command.Verb
        /// When all of it was here.
        package var since: NIODeadline

        package init(_ verb: Command.Verb, since: NIODeadline) {
            self.verb = verb
            self.since = since
        }
    }

    /// What is at the head of the queue.
    package enum Front {
        case none
        /// Waits, or is being done.
        case unfinished(ID, Trait)
        case answer(CommandAnswer, Trait)
    }

    private enum Access {
        case nothing, read
        case write(Key)
        /// Of several keys.
        case exclusive

        init(_ action: Command.Action) {
            switch action {
            case .get(let keys, withCas: _, touch: let touch):
                self = touch == nil ? .read : keys.count == 1 ? .write(keys[0]) : .exclusive
            case .metaGet(let key, withValue: _, unlessCas: _, touch: let touch):
                self = touch == nil ? .read : .write(key)
            case .store(let key, _), .delete(let key, cas: _), .count(let key, _), .touch(let key, _):
                self = .write(key)
            case .stats, .say, .quit: self = .nothing
            }
        }
    }

    private enum Phase {
        case waiting(Command, Access)
        case running(Access)
        case answered(CommandAnswer)
    }

    private var entries = Deque<(phase: Phase, trait: Trait)>()
    private var firstNumber: UInt64 = 0
    /// Everything before this entry has begun.
    private var nextIndex = 0
    private var reads = 0
    private var written: Set<Key> = []
    private var isExclusive = false

    package init() {}

    package var count: Int { entries.count }
    package var isEmpty: Bool { entries.isEmpty }

    package mutating func append(_ command: Command, since: NIODeadline) {
        entries.append((.waiting(command, Access(command.action)), Trait(command.verb, since: since)))
    }

    /// A command that is refused without being done.
    package mutating func append(_ answer: CommandAnswer, _ trait: Trait) {
        entries.append((.answered(answer), trait))
    }

    /// The next command that may begin; it counts as running from now on.
    package mutating func begin() -> (id: ID, command: Command)? {
        while nextIndex < entries.count {
            switch entries[nextIndex].phase {
            case .running, .answered: nextIndex += 1
            case .waiting(let command, let access):
                guard enter(access) else { return nil }
                entries[nextIndex].phase = .running(access)
                let id = ID(number: firstNumber + UInt64(nextIndex))
                nextIndex += 1
                return (id, command)
            }
        }
        return nil
    }

    /// The answer of a command that is running; false where there is no such command (any more).
    package mutating func complete(_ id: ID, _ answer: CommandAnswer) -> Bool {
        guard let index = index(of: id), case .running(let access) = entries[index].phase else { return false }
        entries[index].phase = .answered(answer)
        leave(access)
        return true
    }

    package var front: Front {
        guard let first = entries.first else { return .none }
        guard case .answered(let answer) = first.phase else { return .unfinished(ID(number: firstNumber), first.trait) }
        return .answer(answer, first.trait)
    }

    /// Takes the head of the queue away: its answer has been written.
    package mutating func removeFront() {
        guard let first = entries.popFirst() else { return }
        if case .running(let access) = first.phase { leave(access) }
        firstNumber += 1
        nextIndex = max(0, nextIndex - 1)
    }

    /// Forgets everything; what is running completes into the void.
    package mutating func removeAll() {
        firstNumber += UInt64(entries.count)
        entries.removeAll()
        nextIndex = 0
        reads = 0
        written = []
        isExclusive = false
    }

    private mutating func enter(_ access: Access) -> Bool {
        switch access {
        case .nothing: return true
        case .read:
            guard written.isEmpty, !isExclusive else { return false }
            reads += 1
        case .write(let key):
            guard reads == 0, !isExclusive, !written.contains(key) else { return false }
            written.insert(key)
        case .exclusive:
            guard reads == 0, !isExclusive, written.isEmpty else { return false }
            isExclusive = true
        }
        return true
    }

    private mutating func leave(_ access: Access) {
        switch access {
        case .nothing: break
        case .read: reads -= 1
        case .write(let key): written.remove(key)
        case .exclusive: isExclusive = false
        }
    }

    private func index(of id: ID) -> Int? {
        guard id.number >= firstNumber, id.number - firstNumber < UInt64(entries.count) else { return nil }
        return Int(id.number - firstNumber)
    }
}
