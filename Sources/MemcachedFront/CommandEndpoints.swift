// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import KeyValue
internal import NIOCore

/// What each command does with the store. On the event loop, without waiting.
///
/// A command that rests on what a pair is, is a `PairUpdate`: also between two nodes, one after the other happens.
extension CommandHandler {
    /// Why a pair stays as it is.
    enum Refusal: Hashable, Sendable {
        case missing
        case exists
        case notStored
        case notANumber
        case tooLarge
    }

    // MARK: Reading

    /// - Parameter touch: the new expiry of what is found.
    func find(_ key: Key, touch: ExpirationTime?, _ completion: @escaping (GetRun.Found) -> Void) {
        guard let touch else {
            return front.store.read(key, nil) { result in
                completion(result.map { held in self.living(held).map { ($0, $0.version) } })
            }
        }
        // (The answer is the pair as it is from now on, also where that is gone at once.)
        var found: Envelope?
        update(key) { pair in
            guard let pair else { return .refuse(.missing) }
            found = pair
            return self.replacement(for: key, pair, value: nil, expiry: touch)
        } completion: { end in
            switch end {
            case .written(let version, let written):
                completion(.success((written.isTombstone ? found ?? written : written, version)))
            case .refused: completion(.success(nil))
            case .failed(let failure): completion(.failure(failure))
            }
        }
    }

    func metaGet(
        _ key: Key, withValue: Bool, unlessCas cas: UInt64?, touch: ExpirationTime?, _ command: Command,
        _ id: CommandID
    ) {
        find(key, touch: touch) { found in
            let wanted = command.meta ?? MetaReply()
            switch found {
            case .success((let pair, let version)?):
                let facts = Reply.Facts(pair, version, atMilliseconds: self.front.store.wallMilliseconds)
                guard withValue, version.casUnique != cas else {
                    return self.complete(id, command, CommandAnswer(.hit, .meta("HD", wanted, facts)))
                }
                if let large = pair.largeValue {
                    let lines = Reply.meta("VA", wanted, facts, largeValueBytes: large.length)
                    return self.stream(ValueStream(large, of: key, behind: lines, self.front), command, id)
                }
                self.complete(id, command, CommandAnswer(.hit, .meta("HD", wanted, facts, value: pair.value)))
            case .success(nil):
                let reply = command.isQuiet ? nil : Reply.meta("EN", wanted, nil)
                self.complete(id, command, CommandAnswer(.miss, reply))
            case .failure(let failure): self.complete(id, command, CommandAnswer(failure))
            }
        }
    }

    // MARK: Storing

    func store(_ key: Key, _ store: Command.Store, _ command: Command, _ id: CommandID) {
        switch (store.mode, store.cas) {
        case (.append(let creating), _):
            concatenate(key, store, creating, command, id) { held, new in held.writeImmutableBuffer(new) }
        case (.prepend(let creating), _):
            concatenate(key, store, creating, command, id) { held, new in
                let old = held
                held = new
                held.writeImmutableBuffer(old)
            }
        case (.set, nil): write(key, store, nil, command, id)
        case (.add, _): write(key, store, Precondition(ifNoneMatch: .any), command, id)
        case (.replace, nil): write(key, store, Precondition(ifMatch: .any), command, id)
        case (.set, let cas?), (.replace, let cas?):
            update(key) { pair in
                guard let pair else { return .refuse(.missing) }
                guard pair.version.casUnique == cas else { return .refuse(.exists) }
                return self.newPair(key, store)
            } completion: {
                self.stored($0, command, id)
            }
        }
    }

    private func write(
        _ key: Key, _ store: Command.Store, _ precondition: Precondition?, _ command: Command, _ id: CommandID
    ) {
        guard case .replace(let storedKey, let envelope) = newPair(key, store, isConditional: precondition != nil)
        else {
            return stored(.refused(.tooLarge), command, id)
        }
        let completion = { (result: Result<Version, OperationFailure>) in
            switch result {
            case .success(let version): self.stored(.written(version, envelope), command, id)
            case .failure(.preconditionFailed): self.stored(.refused(.notStored), command, id)
            case .failure(let failure): self.stored(.failed(failure), command, id)
            }
        }
        if let precondition {
            front.store.write(storedKey, envelope, if: precondition, nil, completion: completion)
        } else {
            front.store.write(storedKey, envelope, nil, completion: completion)
        }
    }

    private func concatenate(
        _ key: Key, _ store: Command.Store, _ creating: ExpirationTime?, _ command: Command, _ id: CommandID,
        _ join: @escaping (_ held: inout ByteBuffer, _ new: ByteBuffer) -> Void
    ) {
        update(key) { pair in
            guard let pair else {
                guard let creating, store.cas == nil else { return .refuse(.notStored) }
                var store = store
                store.expiry = creating
                return self.newPair(key, store)
            }
            if let cas = store.cas, cas != pair.version.casUnique { return .refuse(.exists) }
            // (Before it is made: two values may be twice as large as anything that may be held. One in chunks may be a
            // little smaller than an item.)
            guard !pair.isManifest, pair.valueLength + store.value.readableBytes <= self.front.store.itemBytes else {
                return .refuse(.tooLarge)
            }
            var value = pair.value
            join(&value, store.value)
            return self.replacement(for: key, pair, value: value, expiry: nil)
        } completion: {
            self.stored($0, command, id)
        }
    }

    private func stored(_ end: PairUpdate<Refusal>.End, _ command: Command, _ id: CommandID) {
        switch end {
        case .written(let version, let envelope):
            let reply = command.meta.map { wanted in
                Reply.meta(
                    "HD", wanted, Reply.Facts(envelope, version, atMilliseconds: self.front.store.wallMilliseconds))
            }
            let isSilent = command.meta != nil && command.isQuiet
            complete(id, command, CommandAnswer(.done, isSilent ? nil : reply ?? Reply("STORED")))
        case .refused(let refusal): complete(id, command, answer(to: refusal, command.meta))
        case .failed(let failure): complete(id, command, CommandAnswer(failure))
        }
    }

    func touch(_ key: Key, _ expiry: ExpirationTime, _ command: Command, _ id: CommandID) {
        find(key, touch: expiry) { found in
            switch found {
            case .success(_?): self.complete(id, command, CommandAnswer(.hit, Reply("TOUCHED")))
            case .success(nil): self.complete(id, command, self.answer(to: .missing, nil))
            case .failure(let failure): self.complete(id, command, CommandAnswer(failure))
            }
        }
    }

    // MARK: Deleting

    /// Stores that the pair is gone, whether there was one or not: an older copy may be anywhere. What is answered is
    /// what was there just before, so that two who delete at once may both hear that they did.
    func delete(_ key: Key, cas: UInt64?, _ command: Command, _ id: CommandID) {
        if let cas {
            return update(key) { pair in
                guard let pair else { return .refuse(.missing) }
                guard pair.version.casUnique == cas else { return .refuse(.exists) }
                return self.tombstone(of: key, isConditional: true)
            } completion: { end in
                switch end {
                case .written: self.deleted(true, command, id)
                case .refused(let refusal): self.complete(id, command, self.answer(to: refusal, command.meta))
                case .failed(let failure): self.complete(id, command, CommandAnswer(failure))
                }
            }
        }
        front.store.read(key, nil) { result in
            switch result {
            case .failure(let failure): self.complete(id, command, CommandAnswer(failure))
            case .success(let held):
                let wasThere = self.living(held) != nil
                guard case .replace(let storedKey, let tombstone) = self.tombstone(of: key, isConditional: false) else {
                    preconditionFailure("a tombstone fits")
                }
                self.front.store.write(storedKey, tombstone, nil) { result in
                    switch result {
                    case .success: self.deleted(wasThere, command, id)
                    case .failure(let failure): self.complete(id, command, CommandAnswer(failure))
                    }
                }
            }
        }
    }

    private func deleted(_ wasThere: Bool, _ command: Command, _ id: CommandID) {
        guard wasThere else { return complete(id, command, answer(to: .missing, command.meta)) }
        let reply = command.meta.map { Reply.meta("HD", $0, nil) }
        let isSilent = command.meta != nil && command.isQuiet
        complete(id, command, CommandAnswer(.hit, isSilent ? nil : reply ?? Reply("DELETED")))
    }

    // MARK: Counting

    func count(_ key: Key, _ count: Command.Count, _ command: Command, _ id: CommandID) {
        // (0 is no cas unique: whoever sends it has none.)
        let cas = count.cas == 0 ? nil : count.cas
        update(key) { pair in
            guard let pair else {
                guard let creating = count.creating else { return .refuse(.missing) }
                var store = Command.Store(.add)
                store.expiry = creating.expiry
                store.value = ByteBuffer(string: String(creating.initial))
                return self.newPair(key, store)
            }
            if let cas, cas != pair.version.casUnique { return .refuse(.exists) }
            guard let number = CommandHandler.number(pair.value) else { return .refuse(.notANumber) }
            let next = count.isDecrement ? number - min(number, count.delta) : number &+ count.delta
            return self.replacement(for: key, pair, value: ByteBuffer(string: String(next)), expiry: count.touch)
        } completion: { end in
            switch end {
            case .written(let version, let envelope): self.counted(envelope, version, command, id)
            case .refused(let refusal): self.complete(id, command, self.answer(to: refusal, command.meta))
            case .failed(let failure): self.complete(id, command, CommandAnswer(failure))
            }
        }
    }

    private func counted(_ pair: Envelope, _ version: Version, _ command: Command, _ id: CommandID) {
        guard let wanted = command.meta else {
            return complete(id, command, CommandAnswer(.hit, Reply(String(buffer: pair.value))))
        }
        guard !command.isQuiet else { return complete(id, command, CommandAnswer(.hit, nil)) }
        let facts = Reply.Facts(pair, version, atMilliseconds: front.store.wallMilliseconds)
        let reply = Reply.meta("HD", wanted, facts, value: wanted.withNumber ? pair.value : nil)
        complete(id, command, CommandAnswer(.hit, reply))
    }

    /// What memcached counts with: a decimal number of 64 bits, with spaces behind it, for it pads a shorter one so.
    static func number(_ value: ByteBuffer) -> UInt64? {
        let bytes = value.readableBytesView
        guard bytes.count <= mostDigits else { return nil }
        let digits = bytes.prefix { $0 != UInt8(ascii: " ") }
        guard bytes[digits.endIndex...].allSatisfy({ $0 == UInt8(ascii: " ") }) else { return nil }
        return CommandLine.number(digits)
    }

    /// Of 64 bits.
    private static let mostDigits = 20

    // MARK: What they share

    /// In memcached's words, or its meta commands'.
    private func answer(to refusal: Refusal, _ meta: MetaReply?) -> CommandAnswer {
        func words(_ line: String, _ code: StaticString) -> Reply {
            meta.map { Reply.meta(code, $0, nil) } ?? Reply(line)
        }
        switch refusal {
        case .missing: return CommandAnswer(.miss, words("NOT_FOUND", "NF"))
        case .exists: return CommandAnswer(.unmet, words("EXISTS", "EX"))
        case .notStored: return CommandAnswer(.unmet, words("NOT_STORED", "NS"))
        case .notANumber:
            return CommandAnswer(
                .clientError, Reply("CLIENT_ERROR cannot increment or decrement non-numeric value"))
        case .tooLarge: return CommandAnswer(.notApplied(.tooLarge))
        }
    }

    private func update(
        _ key: Key, decide: @escaping (Envelope?) -> PairUpdate<Refusal>.Decision,
        completion: @escaping (PairUpdate<Refusal>.End) -> Void
    ) {
        PairUpdate(front.store, on: front.loop, key, nil, decide: decide, completion: completion).begin()
    }

    private func living(_ held: Envelope?) -> Envelope? {
        held.flatMap { $0.isGone(atMilliseconds: front.store.wallMilliseconds) ? nil : $0 }
    }

    private func newPair(
        _ key: Key, _ store: Command.Store, isConditional: Bool = true
    ) -> PairUpdate<Refusal>.Decision {
        pair(
            key, store.value, contentType: nil, store.flags, { store.expiry.resolved(atMilliseconds: $0) },
            isConditional: isConditional)
    }

    /// The pair with another value, or another expiry.
    /// - Parameters:
    ///   - value: nil: it stays, wherever it is.
    ///   - expiry: nil: it stays.
    private func replacement(
        for key: Key, _ held: Envelope, value: ByteBuffer?, expiry: ExpirationTime?
    ) -> PairUpdate<Refusal>.Decision {
        let resolve = { (now: UInt64) in
            expiry?.resolved(atMilliseconds: now)
                ?? held.expiryMilliseconds.map { ExpirationTime.Resolved.at($0) } ?? .never
        }
        return pair(
            key, value ?? held.value, contentType: held.contentType, held.clientFlags, resolve, isConditional: true,
            manifest: value == nil ? held.largeValue : nil)
    }

    /// - Parameter manifest: of the value, where that is stored in chunks.
    private func pair(
        _ key: Key, _ value: ByteBuffer, contentType: String?, _ flags: UInt32,
        _ expiry: (_ now: UInt64) -> ExpirationTime.Resolved, isConditional: Bool,
        manifest: LargeValue? = nil
    ) -> PairUpdate<Refusal>.Decision {
        let storedKey = StoredKey(key)
        let beside = (contentType.map { 1 + $0.utf8.count } ?? 0) + (flags == 0 ? 0 : Envelope.clientFlagsBytes)
        guard value.readableBytes + beside <= front.store.valueLimit(for: storedKey, of: key) else {
            return .refuse(.tooLarge)
        }
        let expiryMilliseconds: UInt64?
        switch expiry(front.store.wallMilliseconds) {
        case .never: expiryMilliseconds = nil
        case .at(let time): expiryMilliseconds = time
        // What is gone at once is deleted: that is remembered for longer than what has expired, and older copies don't
        // return.
        case .gone: return tombstone(of: key, isConditional: isConditional)
        }
        if let manifest {
            return .replace(
                storedKey,
                Envelope(
                    key: key, storedKey: storedKey, manifest: manifest, contentType: contentType,
                    expiryMilliseconds: expiryMilliseconds, clientFlags: flags))
        }
        return .replace(
            storedKey,
            Envelope(
                key: key, storedKey: storedKey, value: value, contentType: contentType,
                expiryMilliseconds: expiryMilliseconds, clientFlags: flags))
    }

    private func tombstone(of key: Key, isConditional: Bool) -> PairUpdate<Refusal>.Decision {
        let storedKey = StoredKey(key)
        // A conditional write's version may be of long ago, and does not tell how long its tombstone is needed.
        let keptUntil =
            isConditional ? front.store.wallMilliseconds + UInt64(Limits.tombstoneSeconds) * 1000 : nil
        return .replace(
            storedKey,
            Envelope(
                key: key, storedKey: storedKey, value: ByteBuffer(), isTombstone: true, expiryMilliseconds: keptUntil))
    }
}
