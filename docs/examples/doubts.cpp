/* Native logits in, the entropy of every pixel out as bytes, in C++ without a library to link:
 *
 *     cc -std=c11 -O3 -fopenmp-simd -ffinite-math-only -fno-signed-zeros -fno-trapping-math \
 *         -fno-math-errno -c $(python -m doubtmap.runtime --sources)
 *     c++ -std=c++17 -I$(python -m doubtmap.runtime --include) doubts.cpp doubtmap_pixels.o \
 *         pixels.o pixels_threads.o -lm -pthread -o doubts
 *
 * A camera, a robot or another processor needs these files alone: no Python is in them. */

#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "doubtmap_pixels.h"

struct Doubts {
    std::vector<std::uint8_t> classes, entropy; // a byte of entropy is log(C) / 255 nats
};

Doubts doubts(const std::vector<float> &logits, int classes, int rows, int columns, int height,
              int width) {
    const auto pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    Doubts found{std::vector<std::uint8_t>(pixels), std::vector<std::uint8_t>(pixels)};
    doubtmap_call call{};
    call.bytes = sizeof call;
    call.logits = logits.data();
    call.images = 1;
    call.classes = classes;
    call.rows = rows;
    call.columns = columns;
    call.height = height;
    call.width = width;
    call.threads = 1;
    call.class_map = found.classes.data();
    auto &entropy = call.doubts[DOUBTMAP_ENTROPY];
    entropy.bytes = found.entropy.data();
    entropy.step = std::log(static_cast<float>(classes)) / 255;
    const auto code = doubtmap_pixels(&call);
    if (code != DOUBTMAP_OK) throw std::runtime_error(doubtmap_pixels_message(code));
    return found;
}

int main(int count, char **words) try {
    if (count != 7) throw std::runtime_error("expected: LOGITS CLASSES ROWS COLUMNS HEIGHT WIDTH");
    int side[5];
    for (int i = 0; i < 5; i++) side[i] = std::stoi(words[i + 2]);
    std::vector<float> logits(static_cast<std::size_t>(side[0]) * side[1] * side[2]);
    std::ifstream file(words[1], std::ios::binary);
    if (!file.read(reinterpret_cast<char *>(logits.data()), logits.size() * sizeof(float)))
        throw std::runtime_error(std::string(words[1]) + ": expected more float32 numbers");
    const auto found = doubts(logits, side[0], side[1], side[2], side[3], side[4]);
    std::cout.write(reinterpret_cast<const char *>(found.entropy.data()), found.entropy.size());
} catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
}
