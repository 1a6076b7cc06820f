//! Towns whose postcodes and telephone numbers agree, and what their streets are called.

/// A town. Telephone numbers come from the ranges that Ofcom keeps free for drama: nobody has them.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) town: &'static str,
    /// The county, or "" where the town needs none.
    pub(super) county: &'static str,
    pub(super) districts: &'static [&'static str],
    /// All of a telephone number but the last three digits.
    pub(super) telephone: &'static str,
}

const fn place(
    town: &'static str,
    county: &'static str,
    districts: &'static [&'static str],
    telephone: &'static str,
) -> Place {
    Place { town, county, districts, telephone }
}

pub(super) static PLACES: [Place; 30] = [
    place(
        "London",
        "",
        &["E8", "E17", "N4", "N16", "NW5", "SE15", "SE22", "SW2", "SW9", "W3", "W12"],
        "020 7946 0",
    ),
    place("Croydon", "Surrey", &["CR0", "CR2"], "020 7946 0"),
    place("Leeds", "", &["LS6", "LS7", "LS8", "LS12", "LS17"], "0113 496 0"),
    place("Bradford", "West Yorkshire", &["BD3", "BD7", "BD9"], "01632 960"),
    place("Hebden Bridge", "West Yorkshire", &["HX7"], "01632 960"),
    place("Sheffield", "", &["S6", "S7", "S10", "S11"], "0114 496 0"),
    place("York", "", &["YO10", "YO24", "YO31"], "01632 960"),
    place("Manchester", "", &["M14", "M20", "M21", "M33"], "0161 496 0"),
    place("Stockport", "Cheshire", &["SK1", "SK4"], "0161 496 0"),
    place("Liverpool", "", &["L8", "L15", "L17", "L18"], "0151 496 0"),
    place("Newcastle upon Tyne", "", &["NE2", "NE3", "NE6"], "0191 498 0"),
    place("Birmingham", "", &["B13", "B14", "B17", "B29"], "0121 496 0"),
    place("Leicester", "", &["LE2", "LE3", "LE5"], "0116 496 0"),
    place("Nottingham", "", &["NG2", "NG3", "NG5"], "0115 496 0"),
    place("Norwich", "Norfolk", &["NR1", "NR2", "NR3"], "01632 960"),
    place("Cambridge", "", &["CB1", "CB4"], "01632 960"),
    place("Brighton", "East Sussex", &["BN1", "BN2"], "01632 960"),
    place("Southampton", "Hampshire", &["SO14", "SO15", "SO17"], "01632 960"),
    place("Bristol", "", &["BS3", "BS5", "BS6", "BS7"], "0117 496 0"),
    place("Bath", "Somerset", &["BA1", "BA2"], "01632 960"),
    place("Penzance", "Cornwall", &["TR18", "TR19", "TR20"], "01632 960"),
    place("Cardiff", "Caerdydd", &["CF5", "CF11", "CF14", "CF24"], "029 2018 0"),
    place("Swansea", "Abertawe", &["SA1", "SA2"], "01632 960"),
    place("Aberystwyth", "Ceredigion", &["SY23"], "01632 960"),
    place("Edinburgh", "", &["EH4", "EH6", "EH9", "EH10"], "0131 496 0"),
    place("Glasgow", "", &["G11", "G12", "G41", "G42"], "0141 496 0"),
    place("Inverness", "Inverness-shire", &["IV2", "IV3"], "01632 960"),
    place("Stornoway", "Isle of Lewis", &["HS1", "HS2"], "01632 960"),
    place("Belfast", "", &["BT4", "BT7", "BT9", "BT15"], "028 9649 6"),
    place("Londonderry", "County Londonderry", &["BT47", "BT48"], "028 9649 6"),
];

pub(super) static STREETS: [&str; 36] = [
    "High Street",
    "Station Road",
    "Church Lane",
    "Victoria Road",
    "Albert Terrace",
    "Mill Lane",
    "The Green",
    "Park Avenue",
    "Queen's Road",
    "King Street",
    "St Mary's Close",
    "Chapel Hill",
    "Windsor Drive",
    "Orchard Way",
    "Meadow View",
    "Back Lane",
    "Canal Walk",
    "Beech Grove",
    "Elm Crescent",
    "Sycamore Rise",
    "Priory Gardens",
    "Castle Mews",
    "Railway Cottages",
    "Springfield Road",
    "Alexandra Road",
    "Nelson Street",
    "Wellington Place",
    "Trafalgar Square",
    "Mafeking Avenue",
    "Coronation Street",
    "Heol y Bont",
    "Ffordd y Coleg",
    "Loch Road",
    "Kirk Wynd",
    "Shankly Close",
    "Bishop's Hill",
];

pub(super) static HOUSES: [&str; 8] = [
    "Rose Cottage",
    "The Old Vicarage",
    "Tŷ Gwyn",
    "Bramble End",
    "Mill House",
    "Dunroamin",
    "The Laurels",
    "Y Bwthyn",
];
