"""PlantVillage: leaves, healthy and diseased, on a plain background.

    python plantvillage.py -model convnext -bs 64

What      55,448 colour photographs, 256x256 pixels: 38 classes of leaves and one of backgrounds without any
Counts    train 44,343, test 11,105: 0.2 of each class at random, rounded up, names sorted, seed 42, as there is no
          official split. The published lists are not known, only their sizes
Input     256x256 pixels; no augmentation
Traps     the edition on GitHub (raw/color) has 38 classes: it is read with --allow-partial. Copies "with augmentation"
          leak and are refused. Photographs of one leaf can be in train and in test; eight pixels of background alone
          tell half of the classes (Noyan 2022)
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.errors import UserError
from engine.readers.class_folders import read_and_split

FOLDER = "Plant_leave_diseases_dataset_without_augmentation"


def read(options: ReadOptions) -> RawSplits:
    """Class folders."""
    if "with_augmentation" in options.folder.resolve().name:
        raise UserError(
            f"{options.folder} is the augmented edition: changed copies of one photograph would be in train and in "
            f"test. Use {DATASET.files[0].name} of {DATASET.page}"
        )
    return read_and_split(
        options.folder, test_size=0.2, allow_partial=options.allow_partial, published=[*IMAGES, *OTHER_NAMES]
    )


IMAGES = {
    "Apple___Apple_scab": 630,
    "Apple___Black_rot": 621,
    "Apple___Cedar_apple_rust": 275,
    "Apple___healthy": 1645,
    "Background_without_leaves": 1143,
    "Blueberry___healthy": 1502,
    "Cherry___Powdery_mildew": 1052,
    "Cherry___healthy": 854,
    "Corn___Cercospora_leaf_spot Gray_leaf_spot": 513,
    "Corn___Common_rust": 1192,
    "Corn___Northern_Leaf_Blight": 985,
    "Corn___healthy": 1162,
    "Grape___Black_rot": 1180,
    "Grape___Esca_(Black_Measles)": 1383,
    "Grape___Leaf_blight_(Isariopsis_Leaf_Spot)": 1076,
    "Grape___healthy": 423,
    "Orange___Haunglongbing_(Citrus_greening)": 5507,
    "Peach___Bacterial_spot": 2297,
    "Peach___healthy": 360,
    "Pepper,_bell___Bacterial_spot": 997,
    "Pepper,_bell___healthy": 1478,
    "Potato___Early_blight": 1000,
    "Potato___Late_blight": 1000,
    "Potato___healthy": 152,
    "Raspberry___healthy": 371,
    "Soybean___healthy": 5090,
    "Squash___Powdery_mildew": 1835,
    "Strawberry___Leaf_scorch": 1109,
    "Strawberry___healthy": 456,
    "Tomato___Bacterial_spot": 2127,
    "Tomato___Early_blight": 1000,
    "Tomato___Late_blight": 1909,
    "Tomato___Leaf_Mold": 952,
    "Tomato___Septoria_leaf_spot": 1771,
    "Tomato___Spider_mites Two-spotted_spider_mite": 1676,
    "Tomato___Target_Spot": 1404,
    "Tomato___Tomato_Yellow_Leaf_Curl_Virus": 5357,
    "Tomato___Tomato_mosaic_virus": 373,
    "Tomato___healthy": 1591,
}
# as the edition on GitHub calls them
OTHER_NAMES = (
    "Cherry_(including_sour)___Powdery_mildew",
    "Cherry_(including_sour)___healthy",
    "Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot",
    "Corn_(maize)___Common_rust_",
    "Corn_(maize)___Northern_Leaf_Blight",
    "Corn_(maize)___healthy",
)

DATASET = Dataset(
    key="plantvillage",
    name="PlantVillage",
    version="1",
    domain="plant",
    published=True,
    classes=39,
    train_images=44_343,
    test_images=11_105,
    class_images=IMAGES,
    size=(256, 256),
    augment="none",
    mean=(0.4666, 0.4891, 0.4118),
    std=(0.2006, 0.1771, 0.2194),
    read=read,
    files=(
        File(
            "Plant_leaf_diseases_dataset_without_augmentation.zip",
            (
                "https://data.mendeley.com/public-files/datasets/tywbtsjrjv/files/d5652a28-c1d8-4b76-97f3-72fb80f94efc/"
                "file_downloaded",
            ),
            "sha256:ac3432453984d02a86197987e775a5429d0d59e7cc7c35bcf5a8f50349b90ff0",
            868_032_562,
        ),
    ),
    folder=FOLDER,
    other_folders=(
        "PlantVillage-Dataset/raw/color",
        "raw/color",
        "plantvillage dataset/color",  # Kaggle's copy of the edition on GitHub
        "Plant_leave_diseases_dataset_with_augmentation",
    ),
    contains=("Apple___Apple_scab", "Tomato___healthy"),
    split="0.2 of each class, rounded up, seed 42",
    licence="CC0 1.0",
    citation="Hughes & Salathe (2015), arXiv:1511.08060; Geetharamani & Pandian (2019), doi 10.17632/tywbtsjrjv.1",
    page="https://data.mendeley.com/datasets/tywbtsjrjv/1",
)

if __name__ == "__main__":
    main(DATASET)
