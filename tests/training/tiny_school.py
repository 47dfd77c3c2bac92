"""What tests of teachers and their students share; `school` itself is a fixture."""

from doubtmap.training import Settings

NAMES = ("grass", "stone", "water")
MUD = ("mud",)
QUICK = Settings(epochs=2, batch=4, rate=0.02, workers=1)


def taught(network, folder, name):
    return f"{network}@{folder}/{name}"


def images_of(dataset):
    return [dataset[index].image[None].float() / 255 for index in range(len(dataset))]
