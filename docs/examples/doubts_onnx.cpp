/* An exported network in C++ by ONNX Runtime: an image in; classes and doubts out.
 *
 *     doubtmap export MODEL --scores entropy,max_softmax --out net.onnx
 *     c++ -std=c++17 -I ONNXRUNTIME/include doubts_onnx.cpp -L ONNXRUNTIME/lib -lonnxruntime \
 *         -Wl,-rpath,ONNXRUNTIME/lib -o doubts
 *     ./doubts net.onnx image.rgb 720 1280
 *
 * image.rgb holds rows of bytes, red, green and blue of each pixel. Of the file's outputs the first is
 * `classes`, a byte a pixel; of the others, numbers each, the mean is printed. */

#include <cstdint>
#include <fstream>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

/* (1, 3, H, W) in [0, 1], as a file that was exported with --input float takes it. */
std::vector<float> image(const std::string &path, std::size_t pixels) {
    std::vector<std::uint8_t> bytes(3 * pixels);
    std::ifstream file(path, std::ios::binary);
    if (!file.read(reinterpret_cast<char *>(bytes.data()), bytes.size()))
        throw std::runtime_error(path + ": expected 3 bytes a pixel");
    std::vector<float> planes(3 * pixels);
    for (std::size_t channel = 0; channel < 3; channel++)
        for (std::size_t i = 0; i < pixels; i++)
            planes[channel * pixels + i] = bytes[3 * i + channel] / 255.0f;
    return planes;
}

/* The numbers of an output, which must be of the type that they are read as. */
template <typename T> const T *numbers(const Ort::Value &output, const std::string &name) {
    const auto kind = output.GetTensorTypeAndShapeInfo().GetElementType();
    if (kind != Ort::TypeToTensorType<T>::type)
        throw std::runtime_error(name + ": expected " + (sizeof(T) == 1 ? "bytes" : "floats") +
                                 ", as --doubts float and up to 256 classes are written");
    return output.GetTensorData<T>();
}

int main(int count, char **words) try {
    if (count != 5) throw std::runtime_error("expected: NET.onnx IMAGE.rgb HEIGHT WIDTH");
    const std::int64_t height = std::stoll(words[3]), width = std::stoll(words[4]);
    const auto pixels = static_cast<std::size_t>(height * width);
    auto planes = image(words[2], pixels);

    Ort::Env environment;
    Ort::Session network(environment, words[1], Ort::SessionOptions{});
    Ort::AllocatorWithDefaultOptions allocator;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < network.GetOutputCount(); i++)
        names.emplace_back(network.GetOutputNameAllocated(i, allocator).get());
    std::vector<const char *> outputs;
    for (const auto &name : names) outputs.push_back(name.c_str());

    const std::int64_t shape[] = {1, 3, height, width};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input =
        Ort::Value::CreateTensor<float>(memory, planes.data(), planes.size(), shape, 4);
    const char *inputs[] = {"images"};
    const auto said = network.Run(Ort::RunOptions{}, inputs, &input, 1, outputs.data(), outputs.size());

    const auto *classes = numbers<std::uint8_t>(said[0], names[0]);
    std::vector<std::size_t> found(256);
    for (std::size_t i = 0; i < pixels; i++) found[classes[i]]++;
    for (std::size_t k = 0; k < found.size(); k++)
        if (found[k]) std::cout << "class " << k << " " << found[k] << "\n";
    for (std::size_t i = 1; i < names.size(); i++) {
        const auto *doubt = numbers<float>(said[i], names[i]);
        const auto count = said[i].GetTensorTypeAndShapeInfo().GetElementCount();
        std::cout << names[i] << " " << std::accumulate(doubt, doubt + count, 0.0) / count << "\n";
    }
} catch (const std::exception &error) { // Ort::Exception, too
    std::cerr << error.what() << "\n";
    return 1;
}
