// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials

/// A 64-bit number as etcd's gateway writes it: as text, since JSON's numbers may not hold it.
struct EtcdNumber: Hashable, Sendable, Codable {
    let value: Int64

    init(_ value: Int64) { self.value = value }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let text = try? container.decode(String.self) {
            guard let value = Int64(text) else {
                throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a number: \(text)")
            }
            self.value = value
        } else {
            value = try container.decode(Int64.self)
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(String(value))
    }
}

extension KeyedDecodingContainer {
    /// etcd leaves out what is zero.
    func etcdNumber(_ key: Key) throws -> Int64 { try decodeIfPresent(EtcdNumber.self, forKey: key)?.value ?? 0 }
}

/// What every answer says of the store as a whole.
struct EtcdHeader: Hashable, Sendable, Decodable {
    /// The number of the last change to any key.
    let revision: Int64

    private enum CodingKeys: String, CodingKey { case revision }

    init(from decoder: any Decoder) throws {
        revision = try decoder.container(keyedBy: CodingKeys.self).etcdNumber(.revision)
    }
}

/// A key and what it holds.
package struct EtcdPair: Hashable, Sendable, Decodable {
    package let key: String
    package let value: Data
    /// The revision of the key's last change; 0 for a key that was deleted.
    package let modRevision: Int64

    private enum CodingKeys: String, CodingKey {
        case key, value
        case modRevision = "mod_revision"
    }

    package init(key: String, value: Data, modRevision: Int64) {
        self.key = key
        self.value = value
        self.modRevision = modRevision
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        key = String(decoding: try container.decode(Data.self, forKey: .key), as: UTF8.self)
        value = try container.decodeIfPresent(Data.self, forKey: .value) ?? Data()
        modRevision = try container.etcdNumber(.modRevision)
    }
}
