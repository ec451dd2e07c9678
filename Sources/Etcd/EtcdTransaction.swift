// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials

/// If all of `conditions` hold, do `success`, else `failure`; all at one moment. Without conditions it is `success`.
package struct EtcdTransaction: Hashable, Sendable {
    package enum Condition: Hashable, Sendable {
        case isAbsent(key: String)
        case holds(key: String, Data)
        /// 0: there is no such key.
        case wasChangedLast(key: String, at: Int64)
    }

    package enum Operation: Hashable, Sendable {
        case get(key: String)
        /// - Parameter lease: the key is gone with it; nil: it stays.
        case put(key: String, Data, lease: Int64?)
    }

    package var conditions: [Condition]
    package var success: [Operation]
    package var failure: [Operation]

    package init(if conditions: [Condition] = [], then success: [Operation], else failure: [Operation] = []) {
        self.conditions = conditions
        self.success = success
        self.failure = failure
    }
}

extension EtcdTransaction: Encodable {
    private enum CodingKeys: String, CodingKey { case compare, success, failure }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(conditions, forKey: .compare)
        try container.encode(success, forKey: .success)
        try container.encode(failure, forKey: .failure)
    }
}

extension EtcdTransaction.Condition: Encodable {
    private enum CodingKeys: String, CodingKey {
        case key, target, result, value
        case createRevision = "create_revision"
        case modRevision = "mod_revision"
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode("EQUAL", forKey: .result)
        switch self {
        case .isAbsent(let key):
            try container.encode(Data(key.utf8), forKey: .key)
            try container.encode("CREATE", forKey: .target)
            try container.encode(EtcdNumber(0), forKey: .createRevision)
        case .holds(let key, let value):
            try container.encode(Data(key.utf8), forKey: .key)
            try container.encode("VALUE", forKey: .target)
            try container.encode(value, forKey: .value)
        case .wasChangedLast(let key, let revision):
            try container.encode(Data(key.utf8), forKey: .key)
            try container.encode("MOD", forKey: .target)
            try container.encode(EtcdNumber(revision), forKey: .modRevision)
        }
    }
}

extension EtcdTransaction.Operation: Encodable {
    private enum CodingKeys: String, CodingKey {
        case requestRange = "request_range"
        case requestPut = "request_put"
    }

    private enum RequestKeys: String, CodingKey { case key, value, lease }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        switch self {
        case .get(let key):
            var request = container.nestedContainer(keyedBy: RequestKeys.self, forKey: .requestRange)
            try request.encode(Data(key.utf8), forKey: .key)
        case .put(let key, let value, let lease):
            var request = container.nestedContainer(keyedBy: RequestKeys.self, forKey: .requestPut)
            try request.encode(Data(key.utf8), forKey: .key)
            try request.encode(value, forKey: .value)
            if let lease { try request.encode(EtcdNumber(lease), forKey: .lease) }
        }
    }
}

/// What became of a transaction.
package struct EtcdTransactionAnswer: Hashable, Sendable {
    /// Whether its conditions held.
    package let succeeded: Bool
    /// The store's revision after it; of a transaction that has put something, the revision of what it put.
    package let revision: Int64
    /// What `get` has found.
    package let pairs: [EtcdPair]

    package init(succeeded: Bool, revision: Int64, pairs: [EtcdPair]) {
        self.succeeded = succeeded
        self.revision = revision
        self.pairs = pairs
    }

    package func pair(_ key: String) -> EtcdPair? { pairs.first { $0.key == key } }
}

extension EtcdTransactionAnswer: Decodable {
    private enum CodingKeys: String, CodingKey { case header, succeeded, responses }

    private struct Response: Decodable {
        let range: Range?

        struct Range: Decodable { let kvs: [EtcdPair]? }

        private enum CodingKeys: String, CodingKey { case range = "response_range" }
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        succeeded = try container.decodeIfPresent(Bool.self, forKey: .succeeded) ?? false
        revision = try container.decode(EtcdHeader.self, forKey: .header).revision
        pairs = try (container.decodeIfPresent([Response].self, forKey: .responses) ?? []).flatMap {
            $0.range?.kvs ?? []
        }
    }
}
