"""Oxford Flowers-102: flowers that grow in the United Kingdom.

    python flowers102.py -model convnext -bs 64

What      8,189 colour photographs, 40 to 258 a class
Counts    train 2,040 (the official train and validation parts, 10 + 10 a class), test 6,149 (the official test part)
Input     256x256 pixels; TrivialAugmentWide
Traps     the published table says 2,040 training images, but the original code trains on the official train part
          alone, 1,020. Some papers swap train and test
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.annotations import damaged, find_list, listed_part, read_matlab, whole_numbers

# in the order of the official numbers, which is all that the lists have
NAMES = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower,
fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke, sweet
william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya, cape
flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia, bolero deep
blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula, sunflower,
pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow dahlia?, cautleya spicata, japanese
anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris, windflower,
tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus, toad lily,
anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen, watercress,
canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow, mexican petunia, bromelia,
blanket flower, trumpet creeper, blackberry lily
"""
CLASSES = tuple(NAMES.strip().replace("\n", " ").split(", "))

HOST = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"


def read(options: ReadOptions) -> RawSplits:
    """Labels 1 to 102 in the order of the images' numbers; parts as lists of these numbers, from 1."""
    # the lists are files of their own, which may lie beside the images' folder
    names, lists = (
        find_list(options.folder, name) or options.folder / name for name in ("imagelabels.mat", "setid.mat")
    )
    labels = whole_numbers(names, *read_matlab(names, "labels"))
    train, val, test = (whole_numbers(lists, part) for part in read_matlab(lists, "trnid", "valid", "tstid"))
    if max(*train, *val, *test) > len(labels) or min(*train, *val, *test) < 1:
        raise damaged(lists, f"it names other images than the {len(labels):,} with labels")
    (train_part, missing_train), (test_part, missing_test) = (
        listed_part(
            options.folder,
            [f"jpg/image_{number:05}.jpg" for number in sorted(chosen)],
            [labels[number - 1] - 1 for number in sorted(chosen)],
        )
        for chosen in (train + val, test)
    )
    return RawSplits(CLASSES, train_part, test_part, missing=missing_train + missing_test)


DATASET = Dataset(
    key="flowers102",
    name="Flowers-102",
    version="1",
    domain="natural",
    published=True,
    classes=102,
    train_images=2_040,
    test_images=6_149,
    size=(256, 256),
    augment="trivial",
    mean=(0.4326, 0.3817, 0.2961),
    std=(0.2928, 0.2445, 0.2716),
    read=read,
    files=(
        File("imagelabels.mat", (HOST + "imagelabels.mat",), "md5:e0620be6f572b9609742df49c70aed4d", 502),
        File("setid.mat", (HOST + "setid.mat",), "md5:a5357ecc9cb78c4bef273ce3793fc85c", 14_989),
        File("102flowers.tgz", (HOST + "102flowers.tgz",), "md5:52808999861908f626f3c1f4e79d11fa", 344_862_509),
    ),
    folder="flowers-102",
    contains=("jpg",),
    split="official train + val / test",
    licence="not stated for the photographs",
    citation="Nilsback & Zisserman (2008), Automated Flower Classification over a Large Number of Classes",
    page="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
)

if __name__ == "__main__":
    main(DATASET)
