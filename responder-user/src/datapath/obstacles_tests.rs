use super::*;

fn features(driver: &str) -> Features {
    Features { driver: Some(driver.to_owned()), lro: Some(false), gro_hw: Some(false), ..Features::default() }
}

fn nic(features: &Features, mtu: u32) -> Nic<'_> {
    Nic { name: "eth0", mtu, features, xdp: None }
}

/// The way out of a refusal in these words, of a NIC with an MTU of 1500.
fn out(features: &Features, errno: Errno, words: &str) -> String {
    way_out(&nic(features, 1500), errno, (!words.is_empty()).then_some(words)).unwrap_or_default()
}

#[test]
fn nothing_is_said_where_nothing_is_known() {
    for driver in ["veth", "virtio_net", "e1000e", "ena", "bnxt_en"] {
        assert_eq!(known(&nic(&features(driver), 1500)), [""; 0], "{driver}");
    }
    let words = "Underlying driver does not support XDP in native mode";
    assert_eq!(out(&features("e1000e"), Errno::EOPNOTSUPP, words), "");
    assert_eq!(out(&features("veth"), Errno::EPERM, ""), "");
}

#[test]
fn large_frames() {
    let (i40e, ena) = (features("i40e"), features("ena"));
    assert_eq!(
        known(&nic(&ena, 9001)),
        ["ena runs programs up to an MTU of 3498; it is 9001: ip link set eth0 mtu 3498"]
    );
    let text = known(&nic(&i40e, 9000)).concat();
    assert!(text.contains("up to an MTU of 3046 in one buffer") && text.contains("multi-buffer"), "{text}");
    assert_eq!(known(&nic(&i40e, 3046)), [""; 0]);
    // Where the driver can be asked, nothing is guessed.
    let says = |multi_buffer| Some(XdpFeatures { native: true, multi_buffer });
    assert_eq!(known(&Nic { xdp: says(true), ..nic(&i40e, 9000) }), [""; 0]);
    let sure = known(&Nic { xdp: says(false), ..nic(&i40e, 9000) });
    assert_eq!(sure, ["i40e runs programs up to an MTU of 3046; it is 9000: ip link set eth0 mtu 3046"]);
    let words = "MTU too large for linear frames and XDP prog does not support frags";
    assert_eq!(way_out(&nic(&i40e, 9000), Errno::EINVAL, Some(words)), Some(text));
    let veth = features("veth");
    assert!(out(&veth, Errno::ERANGE, "veth: Peer MTU is too large to set XDP").contains("lower its MTU"));
}

#[test]
fn coalescing() {
    for driver in ["hv_netvsc", "mlx5_core", "gve", "ixgbe"] {
        let on = Features { lro: Some(true), ..features(driver) };
        assert!(
            out(&on, Errno::EOPNOTSUPP, "XDP: not support LRO").contains("ethtool -K eth0 lro off"),
            "{driver}"
        );
    }
    let on = Features { gro_hw: Some(true), ..features("mlx5_core") };
    assert!(out(&on, Errno::EINVAL, "").contains("ethtool -K eth0 rx-gro-hw off"));
    // Not all drivers mind.
    assert_eq!(known(&nic(&Features { gro_hw: Some(true), ..features("virtio_net") }, 1500)), [""; 0]);
    // With virtio, only the hypervisor can do something about it.
    let words = "virtio_net: Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first";
    assert!(out(&features("virtio_net"), Errno::EOPNOTSUPP, words).contains("guest_tso4=off"));
}

#[test]
fn queues() {
    let channels = |rx, tx, combined| Channels { rx, tx, combined, max_rx: 16, max_tx: 16, max_combined: 16 };
    let with = |driver, channels| Features { channels: Some(channels), ..features(driver) };
    for (features, command) in [
        (with("ena", channels(0, 0, 9)), "ethtool -L eth0 combined 8"),
        (with("gve", channels(4, 8, 0)), "ethtool -L eth0 rx 8 tx 8"),
        (with("gve", channels(9, 9, 0)), "ethtool -L eth0 rx 8 tx 8"),
        (with("bnxt_en", channels(4, 4, 0)), "ethtool -L eth0 rx 0 tx 0 combined 4"),
    ] {
        assert!(out(&features, Errno::EINVAL, "").contains(command), "{features:?}");
    }
    for features in
        [with("ena", channels(0, 0, 8)), with("gve", channels(8, 8, 0)), with("bnxt_en", channels(0, 0, 8))]
    {
        assert_eq!(known(&nic(&features, 1500)), [""; 0], "{features:?}");
    }
    let words = "veth: XDP expects number of rx queues not less than peer tx queues";
    assert!(out(&features("veth"), Errno::ENOSPC, words).contains("ethtool -L eth0 rx N"));
    let words = "virtio_net: Too few free TX rings available";
    assert!(out(&features("virtio_net"), Errno::ENOMEM, words).contains("ethtool -L eth0 combined 1"));
    assert!(out(&features("ixgbe"), Errno::ENOMEM, "").contains("one per CPU"));
}

#[test]
fn others_programs_and_what_is_only_in_the_log() {
    let words = "Native and generic XDP can't be active at the same time";
    assert!(out(&features("veth"), Errno::EEXIST, words).contains("in the other mode"));
    assert!(out(&features("ixgbe"), Errno::EINVAL, "").contains("SR-IOV"));
    assert!(out(&features("bnxt_en"), Errno::EOPNOTSUPP, "").contains("dmesg"));
}

#[test]
fn links_that_bounce() {
    assert_eq!(reset_on_attach("veth"), None);
    assert!(reset_on_attach("i40e").unwrap().ends_with("; not when the agent is restarted or upgraded"));
    assert!(reset_on_attach("bnxt_en").unwrap().ends_with("; also when the agent is upgraded"));
}
