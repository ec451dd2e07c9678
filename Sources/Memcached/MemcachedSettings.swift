// SPDX-License-Identifier: Apache-2.0

internal import KeyValue
private import Synchronization

/// What memcached says of itself that matters to a store.
package struct MemcachedSettings: Hashable, Sendable {
    /// The largest item with its header and key, in bytes (`-I`).
    package let itemBytes: Int
    /// Whether it throws items away when it is full (no `-M`).
    package let evicts: Bool

    /// Reads the answer to `stats settings`, a name and a value at a time.
    struct Reader {
        private var itemBytes: Int?
        private var evicts: Bool?

        mutating func take(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
            switch String(decoding: name, as: UTF8.self) {
            case "item_size_max": itemBytes = Int(String(decoding: value, as: UTF8.self))
            case "evictions": evicts = String(decoding: value, as: UTF8.self) != "off"
            default: break
            }
        }

        var settings: MemcachedSettings? {
            guard let itemBytes, let evicts else { return nil }
            return MemcachedSettings(itemBytes: itemBytes, evicts: evicts)
        }
    }
}

/// The latest settings, written by whichever thread has connected and read by all.
package final class MemcachedSettingsCell: Sendable {
    private let latest = Mutex<MemcachedSettings?>(nil)
    private let itemLimit = Atomic<Int>(Limits.defaultItemBytes)

    package init() {}

    func set(_ settings: MemcachedSettings) {
        latest.withLock { $0 = settings }
        itemLimit.store(settings.itemBytes, ordering: .relaxed)
    }

    /// Nil until memcached was reached for the first time.
    package var settings: MemcachedSettings? { latest.withLock { $0 } }

    /// memcached's item limit in bytes; its default until it was asked.
    package var itemBytes: Int { itemLimit.load(ordering: .relaxed) }
}
