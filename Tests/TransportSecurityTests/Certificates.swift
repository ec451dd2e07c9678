// SPDX-License-Identifier: Apache-2.0

/// What `deploy/make-certs.sh --days 36500 127.0.0.1 fd00::7` has made, for tests alone.
enum Certificates {
    /// The authority's.
    static let authority = """
        -----BEGIN CERTIFICATE-----
        MIIBgzCCASmgAwIBAgIUZxYjQr5TrpWMgyTfgWwUtV+6hzgwCgYIKoZIzj0EAwIw
        HTEbMBkGA1UEAwwSa3ZzZXJ2ZXIgYXV0aG9yaXR5MCAXDTI2MTEyNzAyMTEyMFoY
        DzIxMjYxMTAzMDIxMTIwWjAdMRswGQYDVQQDDBJrdnNlcnZlciBhdXRob3JpdHkw
        WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASzAr6bf6VtKufvfMS9t0fjHp18Zx2j
        TExfqu5n5WUDJCIrRIOT+t8mWXBTM21ijppRiywZrSjkPQPZYsQnzIPLo0UwQzAS
        BgNVHRMBAf8ECDAGAQH/AgEAMA4GA1UdDwEB/wQEAwIBBjAdBgNVHQ4EFgQUtxj7
        6hISYz1aD317ufevkTW8Rf0wCgYIKoZIzj0EAwIDSAAwRQIhAIFAp9x2n0scFlzE
        W19dQrx9iXAoy04jja4BqtDrRMG8AiBSL8tDQJNZaDC75uGo5SMa+olUUnH8ZvTW
        jxZ1UnNyBQ==
        -----END CERTIFICATE-----

        """

    /// For 127.0.0.1.
    static let here = """
        -----BEGIN CERTIFICATE-----
        MIIBxTCCAWqgAwIBAgIRAOccJEpbAJ/ncbKRdP94aBIwCgYIKoZIzj0EAwIwHTEb
        MBkGA1UEAwwSa3ZzZXJ2ZXIgYXV0aG9yaXR5MCAXDTI2MTEyNzAyMTEyMVoYDzIx
        MjYxMTAzMDIxMTIxWjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIB
        BggqhkjOPQMBBwNCAAS/x4SuAuEimKodPXY1jtoiBQHU1LI2pmYniuuR2IyVqF1x
        4gMkHUS8yQLWtiniZmn+0rtSARqVkcGelowOGmcso4GRMIGOMAwGA1UdEwEB/wQC
        MAAwDgYDVR0PAQH/BAQDAgeAMB0GA1UdJQQWMBQGCCsGAQUFBwMBBggrBgEFBQcD
        AjAPBgNVHREECDAGhwR/AAABMB0GA1UdDgQWBBS5VwJZFi05MIzj3+OTBFG5nl1O
        WjAfBgNVHSMEGDAWgBS3GPvqEhJjPVoPfXu596+RNbxF/TAKBggqhkjOPQQDAgNJ
        ADBGAiEAwQ3SDS2bQBEHdDenEKcsKPD2iIAGotpHoW2YWmB6JU8CIQCrSBoAxyXI
        MWbNoSBiHX2fQVdORr0BZel4eIUmOmJDYA==
        -----END CERTIFICATE-----

        """

    /// Its key.
    static let keyOfHere = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgsvZ18bmPhv/jM6N9
        3cDHznDWAQ3cnFbaAIivat4brrKhRANCAAS/x4SuAuEimKodPXY1jtoiBQHU1LI2
        pmYniuuR2IyVqF1x4gMkHUS8yQLWtiniZmn+0rtSARqVkcGelowOGmcs
        -----END PRIVATE KEY-----

        """

    /// For fd00::7.
    static let there = """
        -----BEGIN CERTIFICATE-----
        MIIBzjCCAXSgAwIBAgIRALKRep+O8k/r+OBFJT6odOcwCgYIKoZIzj0EAwIwHTEb
        MBkGA1UEAwwSa3ZzZXJ2ZXIgYXV0aG9yaXR5MCAXDTI2MTEyNzAyMTEyMVoYDzIx
        MjYxMTAzMDIxMTIxWjASMRAwDgYDVQQDDAdmZDAwOjo3MFkwEwYHKoZIzj0CAQYI
        KoZIzj0DAQcDQgAEshK9nIYALX2IhIlbrkcKrRgCcQqi6uRv3yPkKJWwvZEA3NfL
        kJFDWuJcXhyTluz+wLg/ocAT2j0ojRiLpPMPa6OBnTCBmjAMBgNVHRMBAf8EAjAA
        MA4GA1UdDwEB/wQEAwIHgDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIw
        GwYDVR0RBBQwEocQ/QAAAAAAAAAAAAAAAAAABzAdBgNVHQ4EFgQUqDcWG3gIqAo/
        u4lwFJVxht0JkFQwHwYDVR0jBBgwFoAUtxj76hISYz1aD317ufevkTW8Rf0wCgYI
        KoZIzj0EAwIDSAAwRQIhAOAqCQRMMxc+QpcVvrkAoMb4sdGV5wMpqOJU7MhRq4t7
        AiA+5bHH+bu/8vyWXTG22yTQbKTi64Otxua/3+/gZzzItA==
        -----END CERTIFICATE-----

        """

    /// Its key.
    static let keyOfThere = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVQ8IjjsOjxuy5GZ+
        Ls/6DkjvoS8tN5jPnLl+ZEo5BXGhRANCAASyEr2chgAtfYiEiVuuRwqtGAJxCqLq
        5G/fI+QolbC9kQDc18uQkUNa4lxeHJOW7P7AuD+hwBPaPSiNGIuk8w9r
        -----END PRIVATE KEY-----

        """
}
