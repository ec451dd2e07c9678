// SPDX-License-Identifier: Apache-2.0

/// Bodies of `/v3/lease/…`.
enum EtcdLease {
    struct Grant: Encodable, Sendable {
        let seconds: EtcdNumber

        private enum CodingKeys: String, CodingKey { case seconds = "TTL" }
    }

    /// Of `keepalive` and `revoke`.
    struct Named: Encodable, Sendable {
        let id: EtcdNumber

        private enum CodingKeys: String, CodingKey { case id = "ID" }
    }

    struct Granted: Decodable, Sendable {
        let id: Int64

        private enum CodingKeys: String, CodingKey { case id = "ID" }

        init(from decoder: any Decoder) throws {
            id = try decoder.container(keyedBy: CodingKeys.self).decode(EtcdNumber.self, forKey: .id).value
        }
    }

    struct KeptAlive: Decodable, Sendable {
        /// What is left of it; 0 where it has run out.
        let seconds: Int64

        private enum CodingKeys: String, CodingKey { case result }
        private enum ResultKeys: String, CodingKey { case seconds = "TTL" }

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            seconds = try container.nestedContainer(keyedBy: ResultKeys.self, forKey: .result).etcdNumber(.seconds)
        }
    }

    struct Nothing: Decodable, Sendable {}
}

/// An answer of etcd's that is not a success.
struct EtcdRefusal: Decodable, Sendable {
    let error: String
    /// gRPC's.
    let code: Int?

    static let notFound = 5
}
