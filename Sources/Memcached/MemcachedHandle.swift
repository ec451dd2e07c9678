// SPDX-License-Identifier: Apache-2.0

private import CMemcached
internal import KeyValue

/// One libmemcached connection and all that it owns: made, used and freed on one thread, for it can be neither copied
/// nor sent. Connects when it is first used, and again after each failure.
///
/// Whatever libmemcached hands out is copied before its next call.
struct MemcachedHandle: ~Copyable {
    enum StoreAnswer {
        case stored
        /// Somebody else has changed or made the item since it was read.
        case lost
        /// There is no such item (any more).
        case missing
    }

    private let endpoint: MemcachedEndpoint
    private let settings: MemcachedSettingsCell
    private var connection: UnsafeMutablePointer<memcached_st>?
    var isConnected: Bool { connection != nil }
    /// Grows whenever a connection is given up: a cas token says nothing on another one than it was read on, for
    /// memcached may have come back empty in between and given the same token to something else.
    private(set) var connectionNumber = 0
    /// libmemcached fills this one again for each value. In memory of ours, for it frees one of its own after the last.
    private let result: UnsafeMutablePointer<memcached_result_st>
    /// The timeout that the connection has now.
    private var timeoutMilliseconds: Int32 = 0

    /// libmemcached's own default is 4 s.
    private static let connectTimeoutMilliseconds: UInt64 = 250
    private static let settingsTimeoutMilliseconds: Int32 = 500

    /// - Parameter settings: told what memcached says of itself at each connection.
    init(_ endpoint: MemcachedEndpoint, settings: MemcachedSettingsCell) {
        self.endpoint = endpoint
        self.settings = settings
        self.result = .allocate(capacity: 1)
    }

    deinit {
        if let connection {
            memcached_result_free(result)
            memcached_free(connection)
        }
        result.deallocate()
    }

    // MARK: Connection

    /// After any doubt: no answer to an earlier call can be met again.
    private mutating func drop() {
        guard let connection else { return }
        memcached_result_free(result)
        memcached_free(connection)
        self.connection = nil
        connectionNumber += 1
    }

    /// The connection, made now if need be. A memcached that evicts is not served.
    private mutating func connected() throws(MemcachedError) -> UnsafeMutablePointer<memcached_st> {
        if let connection { return connection }
        guard let made = memcached_create(nil) else { throw .unavailable("out of memory") }
        let code =
            switch endpoint {
            case .unixSocket(let path): memcached_server_add_unix_socket(made, path)
            case .tcp(let host, let port): memcached_server_add(made, host, port)
            }
        guard code == MEMCACHED_SUCCESS else {
            memcached_free(made)
            throw .unavailable(String(cString: memcached_strerror(nil, code)))
        }
        memcached_behavior_set(made, MEMCACHED_BEHAVIOR_SUPPORT_CAS, 1)
        memcached_behavior_set(made, MEMCACHED_BEHAVIOR_VERIFY_KEY, 1)
        memcached_behavior_set(made, MEMCACHED_BEHAVIOR_TCP_NODELAY, 1)
        memcached_behavior_set(made, MEMCACHED_BEHAVIOR_CONNECT_TIMEOUT, MemcachedHandle.connectTimeoutMilliseconds)
        memcached_result_create(made, result)
        connection = made
        timeoutMilliseconds = 0
        setTimeout(MemcachedHandle.settingsTimeoutMilliseconds, on: made)
        let found = try readSettings(made)
        settings.set(found)
        if found.evicts {
            drop()
            throw .evicts
        }
        return made
    }

    /// Bounds each wait of the calls that follow, in milliseconds. libmemcached's own default is 5 s.
    private mutating func setTimeout(_ milliseconds: Int32, on connection: UnsafeMutablePointer<memcached_st>) {
        let bounded = max(milliseconds, 1)
        guard bounded != timeoutMilliseconds else { return }
        timeoutMilliseconds = bounded
        memcached_behavior_set(connection, MEMCACHED_BEHAVIOR_POLL_TIMEOUT, UInt64(bounded))
    }

    private mutating func readSettings(
        _ connection: UnsafeMutablePointer<memcached_st>
    ) throws(MemcachedError) -> MemcachedSettings {
        var found = MemcachedSettings.Reader()
        let code = withUnsafeMutablePointer(to: &found) { reader in
            memcached_stat_execute(
                connection, "settings",
                { _, name, nameLength, value, valueLength, context in
                    guard let name, let value, let context else { return MEMCACHED_FAILURE }
                    context.assumingMemoryBound(to: MemcachedSettings.Reader.self).pointee.take(
                        UnsafeRawBufferPointer(start: name, count: nameLength),
                        UnsafeRawBufferPointer(start: value, count: valueLength))
                    return MEMCACHED_SUCCESS
                }, reader)
        }
        guard code == MEMCACHED_SUCCESS else { throw failure(code) }
        guard let settings = found.settings else {
            drop()
            throw .protocolViolation("no settings")
        }
        return settings
    }

    /// What memcached counts: the numbers among the answers to `stats`, by name.
    mutating func statistics(timeoutMilliseconds: Int32) throws(MemcachedError) -> [String: Double] {
        let connection = try connected()
        setTimeout(timeoutMilliseconds, on: connection)
        var found: [String: Double] = [:]
        let code = withUnsafeMutablePointer(to: &found) { found in
            memcached_stat_execute(
                connection, nil,
                { _, name, nameLength, value, valueLength, context in
                    guard let name, let value, let context else { return MEMCACHED_FAILURE }
                    let text = String(
                        decoding: UnsafeRawBufferPointer(start: value, count: valueLength), as: UTF8.self)
                    if let number = Double(text) {
                        let name = UnsafeRawBufferPointer(start: name, count: nameLength)
                        context.assumingMemoryBound(to: [String: Double].self).pointee[
                            String(decoding: name, as: UTF8.self)] = number
                    }
                    return MEMCACHED_SUCCESS
                }, found)
        }
        guard code == MEMCACHED_SUCCESS else { throw failure(code) }
        return found
    }

    /// The one place where libmemcached's codes become errors. Drops the connection unless the answer was a plain no.
    private mutating func failure(_ code: memcached_return_t) -> MemcachedError {
        switch code {
        case MEMCACHED_SERVER_MEMORY_ALLOCATION_FAILURE: return .outOfMemory
        case MEMCACHED_E2BIG: return .tooLarge
        case MEMCACHED_TIMEOUT:
            drop()
            return .timedOut
        case MEMCACHED_CONNECTION_FAILURE, MEMCACHED_ERRNO, MEMCACHED_HOST_LOOKUP_FAILURE, MEMCACHED_WRITE_FAILURE,
            MEMCACHED_READ_FAILURE, MEMCACHED_NO_SERVERS, MEMCACHED_SERVER_TEMPORARILY_DISABLED,
            MEMCACHED_SERVER_MARKED_DEAD, MEMCACHED_FAILURE, MEMCACHED_SOME_ERRORS, MEMCACHED_IN_PROGRESS:
            let text = String(cString: memcached_strerror(connection, code))
            drop()
            return .unavailable("\(endpoint): \(text)")
        default:
            let text = String(cString: memcached_strerror(connection, code))
            drop()
            return .protocolViolation(text)
        }
    }

    // MARK: Reading

    /// Reads all keys of the arena with their cas tokens in one request. `body` is called in the keys' order for those
    /// that are there; the bytes are valid during the call only.
    ///
    /// libmemcached 1.1.4 reports some answers that are none (`ERROR`, another command's) as missing keys, and a later
    /// store that meets the wrong kind of answer aborts the process. So where nothing came, it is asked again, once it
    /// is clear that the connection is in step.
    mutating func fetch(
        _ keys: borrowing KeyArena, timeoutMilliseconds: Int32,
        _ body: (_ index: Int, _ value: UnsafeRawBufferPointer, _ token: UInt64) -> Void
    ) throws(MemcachedError) {
        if try fetchOnce(keys, timeoutMilliseconds: timeoutMilliseconds, body) { return }
        _ = try readSettings(try connected())
        _ = try fetchOnce(keys, timeoutMilliseconds: timeoutMilliseconds, body)
    }

    /// - Returns: whether any of the keys was there.
    private mutating func fetchOnce(
        _ keys: borrowing KeyArena, timeoutMilliseconds: Int32,
        _ body: (_ index: Int, _ value: UnsafeRawBufferPointer, _ token: UInt64) -> Void
    ) throws(MemcachedError) -> Bool {
        let connection = try connected()
        setTimeout(timeoutMilliseconds, on: connection)
        let count = keys.count
        let sent = keys.bytes.withUnsafeBytes { bytes -> memcached_return_t in
            guard let base = bytes.baseAddress else { return MEMCACHED_INVALID_ARGUMENTS }
            return withUnsafeTemporaryAllocation(of: UnsafePointer<CChar>?.self, capacity: count) { pointers in
                withUnsafeTemporaryAllocation(of: Int.self, capacity: count) { lengths in
                    for index in 0..<count {
                        let range = keys.range(of: index)
                        pointers.initializeElement(
                            at: index, to: (base + range.lowerBound).assumingMemoryBound(to: CChar.self))
                        lengths.initializeElement(at: index, to: range.count)
                    }
                    return memcached_mget(connection, pointers.baseAddress, lengths.baseAddress, count)
                }
            }
        }
        guard sent == MEMCACHED_SUCCESS else { throw failure(sent) }
        var code = MEMCACHED_SUCCESS
        var next = 0
        while memcached_fetch_result(connection, result, &code) != nil {
            let name = UnsafeRawBufferPointer(
                start: memcached_result_key_value(result), count: memcached_result_key_length(result))
            // memcached answers in the order of the request and leaves out what it lacks.
            while next < count, !keys.isEqual(next, name) { next += 1 }
            guard next < count else {
                drop()
                throw .protocolViolation("a key that was not asked for")
            }
            body(
                next,
                UnsafeRawBufferPointer(start: memcached_result_value(result), count: memcached_result_length(result)),
                memcached_result_cas(result))
            next += 1
        }
        switch code {
        case MEMCACHED_END, MEMCACHED_NOTFOUND, MEMCACHED_SUCCESS:
            // Where an error line or garbage came instead of the first value, this code is the same as for keys that
            // are not there (libmemcached 1.1.4); the last error is not.
            let last = memcached_last_error(connection)
            guard last != MEMCACHED_SUCCESS, last != MEMCACHED_NOTFOUND, last != MEMCACHED_END else { return next > 0 }
            let error = failure(last)
            drop()
            throw error
        default: throw failure(code)
        }
    }

    // MARK: Writing

    /// Overwrites the item if it is still the one that `token` was read with.
    mutating func compareAndSwap(
        _ key: [UInt8], _ value: UnsafeRawBufferPointer, token: UInt64, timeToLiveSeconds: Int = 0,
        timeoutMilliseconds: Int32
    ) throws(MemcachedError) -> StoreAnswer {
        let connection = try connected()
        setTimeout(timeoutMilliseconds, on: connection)
        let code = key.withUnsafeBytes { key in
            memcached_cas(
                connection, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count,
                value.baseAddress?.assumingMemoryBound(to: CChar.self), value.count, timeToLiveSeconds, 0, token)
        }
        return try storeAnswer(code)
    }

    /// Makes the item unless there is one.
    mutating func add(
        _ key: [UInt8], _ value: UnsafeRawBufferPointer, timeToLiveSeconds: Int = 0, timeoutMilliseconds: Int32
    ) throws(MemcachedError) -> StoreAnswer {
        let connection = try connected()
        setTimeout(timeoutMilliseconds, on: connection)
        let code = key.withUnsafeBytes { key in
            memcached_add(
                connection, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count,
                value.baseAddress?.assumingMemoryBound(to: CChar.self), value.count, timeToLiveSeconds, 0)
        }
        return try storeAnswer(code)
    }

    private mutating func storeAnswer(_ code: memcached_return_t) throws(MemcachedError) -> StoreAnswer {
        switch code {
        case MEMCACHED_SUCCESS: return .stored
        case MEMCACHED_DATA_EXISTS, MEMCACHED_NOTSTORED: return .lost
        case MEMCACHED_NOTFOUND: return .missing
        default: throw failure(code)
        }
    }

    mutating func delete(_ key: [UInt8], timeoutMilliseconds: Int32) throws(MemcachedError) {
        let connection = try connected()
        setTimeout(timeoutMilliseconds, on: connection)
        let code = key.withUnsafeBytes { key in
            memcached_delete(connection, key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count, 0)
        }
        guard code == MEMCACHED_SUCCESS || code == MEMCACHED_NOTFOUND else { throw failure(code) }
    }
}
